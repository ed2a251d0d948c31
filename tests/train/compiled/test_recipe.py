"""What the key of a library covers, and what stops the process that compiles."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages.runtime.errors import UserError
from stages.train.compiled import process
from stages.train.compiled.recipe import Recipe
from stages.train.compiled.sources import modules_of
from tests.conftest import PROJECT


def recipe_of(net: nn.Module, **changed: Any) -> Recipe:
    learning = tuple(name for name, parameter in net.named_parameters() if parameter.requires_grad)
    return Recipe(net, learning, nn.MSELoss(), "SGD", {"momentum": 0}, {}, 100, 1, 1)._replace(**changed)


def key(recipe: Recipe) -> str:
    return recipe.key(modules_of(recipe.net))


class WithAttributes(nn.Module):
    """A network with what its description does not show."""

    def __init__(self, slope: float = 0.1, names: frozenset[str] = frozenset(), width: int = 2) -> None:
        super().__init__()
        self.layer, self.slope, self.names = nn.Linear(1, 1), slope, names
        self.register_buffer("scale", torch.ones(width))


def test_the_key_covers_the_recipe_but_not_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = recipe_of(WithAttributes())
    frozen = WithAttributes()
    frozen.layer.bias.requires_grad_(False)
    keys = [
        key(plain),
        key(recipe_of(WithAttributes(slope=0.2))),
        key(recipe_of(WithAttributes(names=frozenset("abc")))),
        key(recipe_of(WithAttributes(width=3))),
        key(recipe_of(WithAttributes().double())),
        key(recipe_of(frozen)),
        key(plain._replace(learning=plain.learning[:1])),
        key(plain._replace(loss_function=nn.HuberLoss(delta=2.0))),
        key(plain._replace(loss_function=nn.HuberLoss(delta=3.0))),
        key(plain._replace(options={"momentum": 0.9})),
        key(plain._replace(state={"momentum_buffer": False})),
        key(plain._replace(rows=50)),
    ]
    monkeypatch.setenv("CPATH", "/elsewhere")
    keys.append(key(plain))
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    assert key(recipe_of(WithAttributes())) == keys[0]  # with other weights


HELPER = """
import os
LIMIT = float(os.environ.get("LIMIT", "3.5"))
"""
NETWORK = """
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        from helper_of_a_network import LIMIT

        return F.hardtanh(self.hidden(x), 0.0, LIMIT)
"""


@pytest.fixture
def helped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe of a network that imports a constant from another module, both in tmp_path."""
    (tmp_path / "helper_of_a_network.py").write_text(HELPER)
    (tmp_path / "network_with_a_helper.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("helper_of_a_network", "network_with_a_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    net = importlib.import_module("network_with_a_helper").Net()
    net(torch.ones(1, 1))
    return recipe_of(net)


def test_the_key_covers_the_modules_that_the_network_imports(
    helped: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [module.name for module in modules_of(helped.net)]
    assert {"helper_of_a_network", "network_with_a_helper", "stages.network", "pydantic"} <= set(names)
    assert not [name for name in names if name.startswith("torch") or name in ("os", "stages.train.training")]
    keys = [key(helped)]
    (tmp_path / "helper_of_a_network.py").write_text(HELPER.replace("3.5", "6.0"))
    keys.append(key(helped))
    monkeypatch.setattr(sys.modules["helper_of_a_network"], "LIMIT", 6.0)  # from the environment
    keys.append(key(helped))
    assert len(set(keys)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("text", [HELPER.replace("3.5", "6.0"), "LIMIT = ("], ids=["value", "syntax"])
def test_a_module_that_changes_before_it_is_compiled_is_named(
    text: str, helped: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modules = modules_of(helped.net)
    (tmp_path / "helper_of_a_network.py").write_text(text)
    monkeypatch.syspath_prepend(PROJECT)
    (tmp_path / "work").mkdir()
    with pytest.raises(
        UserError, match=r"^helper_of_a_network.py: changed while the stage ran: run `dvc repro` again$"
    ):
        process.compiled(helped, modules, str(tmp_path / "work"))
    assert not (tmp_path / "work/library").exists()


@pytest.mark.slow
def test_what_the_compilers_stumble_over_is_named(helped: Recipe, tmp_path: Path) -> None:
    unknown = helped._replace(optimizer="Unknown")
    with pytest.raises(
        UserError,
        match="^params.yaml: train.steps: compiled cannot train this network with Unknown and its options: module "
        "'torch.optim' has no attribute 'Unknown': use eager$",
    ):
        process.compiled(unknown, modules_of(helped.net), str(tmp_path))
    output = "C++ compile error\nOutput:\nx.cpp: In function:\nx.cpp:3: error: no\nx.cpp:4: error: never"
    assert process.cause(RuntimeError(output)) == "x.cpp:3: error: no"
