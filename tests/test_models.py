"""Restoring networks, from our own files and from a stranger's."""

import builtins
import functools
import io
import json
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stages import models, network
from stages.columns import Columns
from stages.models import Blueprint
from stages.network import Net
from stages.runtime.errors import UserError
from stages.tabular import Tabular

SIZES = (2, 10, 3)
PLAIN = Blueprint(*SIZES)
NAMED = Blueprint(*SIZES, Columns(features=["sex"], targets=["ä", "b", "c"], categories={"sex": ["f", "m"]}))
STYLES = ("module", "sequential")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bytes_of(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def new(style: str = "module", sizes: tuple[int, int, int] = SIZES) -> nn.Module:
    return network.build(style, *sizes, seed=0)


def stepped(net: nn.Module) -> nn.Module:
    """Return the network after a step of training, with gradients, and with statistics if it has any."""
    if isinstance(net, Tabular):
        net.fit(torch.rand(5, SIZES[0]), torch.rand(5, SIZES[2]))
    net(torch.rand(5, SIZES[0])).sum().backward()
    torch.optim.Adam(net.parameters()).step()
    return net


@pytest.mark.parametrize("blueprint", [PLAIN, NAMED], ids=["plain", "named"])
@pytest.mark.parametrize("built", STYLES)
@pytest.mark.parametrize("style", STYLES)
def test_either_style_restores_both_ways_and_its_state_dict_into_the_other(
    style: str, built: str, blueprint: Blueprint
) -> None:
    net = stepped(blueprint.build(style))
    torch.save(net, "net.pkl")  # by path: another name in the archive
    Path("net_params.pkl").write_bytes(bytes_of(net.state_dict()))
    x = torch.rand(20, SIZES[0])
    whole = models.restore_net("net.pkl", blueprint)
    assert [type(each) for each in whole.modules()] == [type(each) for each in net.modules()]
    assert torch.equal(whole(x), net(x))
    assert torch.equal(models.restore_params("net_params.pkl", built, blueprint)(x), net(x))
    torch.save(whole, "again.pkl")
    assert torch.equal(models.restore_net("again.pkl", blueprint)(x), net(x))


@pytest.mark.parametrize("blueprint", [PLAIN, NAMED], ids=["plain", "named"])
@pytest.mark.parametrize("style", STYLES)
def test_a_model_is_loaded_from_either_file_by_one_who_knows_nothing_of_it(style: str, blueprint: Blueprint) -> None:
    net, x = stepped(blueprint.build(style)), torch.rand(20, SIZES[0])
    models.save_net("net.pkl", net)
    models.save_params("net_params.pkl", net)
    names = blueprint.columns or Columns(features=["x_0", "x_1"], targets=["y_0", "y_1", "y_2"])
    for path in ("net.pkl", "net_params.pkl"):
        loaded = models.load(path)
        assert torch.equal(loaded(x), net(x))
        assert loaded.names == names
        assert not any(module.training for module in loaded.modules())


def test_a_state_dict_with_columns_is_all_that_plain_torch_needs() -> None:
    net, x = stepped(NAMED.build("module")), torch.rand(20, SIZES[0])
    models.save_params("net_params.pkl", net)
    values = torch.load("net_params.pkl", weights_only=True)
    standardized = ((x - values["x_mean"]) / values["x_deviation"]).float()
    hidden = (standardized @ values["net.hidden.weight"].T + values["net.hidden.bias"]).relu()
    y = hidden @ values["net.predict.weight"].T + values["net.predict.bias"]
    torch.testing.assert_close((y * values["y_deviation"] + values["y_mean"]).float(), net(x))
    assert json.loads(values["_extra_state"])["targets"] == ["ä", "b", "c"]


class Deep(nn.Module):
    """A network of many kinds of layers, as a user may write it."""

    def __init__(self, n_feature: int, n_hidden: int, n_output: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(n_feature, n_hidden), nn.BatchNorm1d(n_hidden), nn.GELU())
        self.second = nn.Sequential(nn.Linear(n_hidden, n_hidden), nn.LayerNorm(n_hidden), nn.Dropout(0.5))
        self.predict = nn.Linear(n_hidden, n_output)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.second(self.first(x)))


def deep_sequential(n_feature: int, n_hidden: int, n_output: int) -> nn.Sequential:
    net = Deep(n_feature, n_hidden, n_output)
    return nn.Sequential(OrderedDict(first=net.first, second=net.second, predict=net.predict))


@pytest.mark.parametrize("built", STYLES)
@pytest.mark.parametrize("style", STYLES)
def test_a_network_of_many_layers_and_buffers_is_restored_both_ways(
    monkeypatch: pytest.MonkeyPatch, style: str, built: str
) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Deep, "sequential": deep_sequential})
    net = stepped(new(style))
    batches = 0x7F800000  # the bytes of an infinite float32
    net.get_buffer("first.1.num_batches_tracked").fill_(batches)
    models.save_net("net.pkl", net)
    models.save_params("net_params.pkl", net)
    x = torch.rand(20, SIZES[0])
    whole, rebuilt = models.restore_net("net.pkl", PLAIN), models.restore_params("net_params.pkl", built, PLAIN)
    for restored in (whole, rebuilt):
        assert bytes_of(restored.state_dict()) == bytes_of(net.state_dict())
        assert restored.training
        assert torch.equal(restored.eval()(x), net.eval()(x))
        assert int(restored.get_buffer("first.1.num_batches_tracked")) == batches
        net.train()


def test_a_buffer_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Deep, "sequential": deep_sequential})
    for broken in ("first.1.running_mean", "first.1.running_var"):
        net = new()
        net.get_buffer(broken).fill_(torch.nan)
        refused(bytes_of(net))
        refused(bytes_of(net.state_dict()))


class Functional(Net):
    """A network that holds a function, which the allow-list of torch.load does not name."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.activation = nn.functional.gelu


def test_a_network_that_holds_more_than_modules_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Functional})
    models.save_net("net.pkl", new())
    with pytest.raises(UserError) as told:
        models.restore_net("net.pkl", PLAIN)
    assert str(told.value) == (
        "net.pkl: must hold only modules, got torch._C._nn.gelu: "
        "use modules in stages/network.py, e.g. nn.GELU() instead of F.gelu, then run `dvc repro`"
    )


class Call:
    """A pickle of this calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class State:
    """A pickle of this makes an object of an allowed class, by calling it or not, and sets a state that we choose."""

    def __init__(self, kind: type, arguments: tuple[Any, ...], state: Any) -> None:
        self.reduced = kind, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def altered(change: Callable[[nn.Module], object], style: str = "module") -> nn.Module:
    net = new(style)
    change(net)
    return net


def with_state(**changes: Any) -> State:
    return State(Net, SIZES, new().__dict__ | changes)


TRAP = ("touch", "trap")
HOSTILE: dict[str, Callable[[], object]] = {
    "os.system": lambda: Call(os.system, " ".join(TRAP)),
    "subprocess": lambda: Call(subprocess.run, TRAP),
    "eval": lambda: Call(builtins.eval, "open('trap', 'w')"),
    "exec": lambda: Call(builtins.exec, "open('trap', 'w')"),
    "torch.load": lambda: Call(torch.load, "other.pkl"),
    "partial": lambda: Call(functools.partial(os.system, " ".join(TRAP))),
    "getattr": lambda: Call(builtins.getattr, "text", "upper"),
    "nested in a state dict": lambda: OrderedDict(new().state_dict(), bias=Call(os.system, " ".join(TRAP))),
    "nested in a network": lambda: altered(lambda net: setattr(net, "extra", Call(os.system, " ".join(TRAP)))),
    "absurd sizes": lambda: Call(Net, 1, 200_000_000, 1),
    "absurd layer": lambda: Call(nn.Linear, 100_000, 100_000),
    "absurd bytes": lambda: Call(bytearray, 10**11),
    "absurd view": lambda: new().state_dict() | {"hidden.weight": torch.zeros(1).expand(10**12)},
    "called with the right sizes": lambda: Call(Net, *SIZES),
    "state of a wrong type": lambda: State(Net, SIZES, [1, 2]),
    "modules of a wrong type": lambda: with_state(_modules={"hidden": 1}),
    "forward hook": lambda: altered(lambda net: net.register_forward_hook(print)),
    "forward hook of ours": lambda: with_state(_forward_hooks=OrderedDict({0: nn.ReLU()})),
    "forward pre-hook of ours": lambda: with_state(_forward_pre_hooks=OrderedDict({0: nn.ReLU()})),
    "hook of a layer": lambda: altered(lambda net: net.get_submodule("hidden")._forward_hooks.update({0: nn.ReLU()})),
    "forward that shadows": lambda: with_state(forward=nn.ReLU()),
    "forward of a layer that shadows": lambda: altered(lambda net: net.hidden.__dict__.update(forward=nn.ReLU())),
    "extra attribute": lambda: with_state(extra=1),
    "missing attribute": lambda: State(Net, SIZES, {k: v for k, v in new().__dict__.items() if k != "_buffers"}),
    "missing layer": lambda: altered(lambda net: net._modules.pop("hidden")),
    "extra layer": lambda: altered(lambda net: net.add_module("more", nn.Linear(1, 1))),
    "another layer": lambda: altered(lambda net: setattr(net, "hidden", nn.ReLU())),
    "layers in another order": lambda: nn.Sequential(
        OrderedDict(hidden=nn.Linear(2, 10), predict=nn.Linear(10, 3), relu=nn.ReLU())
    ),
    "layer too wide for the next": lambda: altered(lambda net: setattr(net, "hidden", nn.Linear(2, 11))),
    "layer that tells another width": lambda: altered(lambda net: setattr(net.hidden, "in_features", 3)),
    "network of another width": lambda: new(sizes=(2, 11, 3)),
    "no bias": lambda: altered(lambda net: setattr(net, "hidden", nn.Linear(2, 10, bias=False))),
    "float64": lambda: new().double(),
    "frozen": lambda: new().requires_grad_(False),
    "transposed strides": lambda: altered(lambda net: setattr(net.hidden, "weight", nn.Parameter(torch.rand(2, 10).T))),
    "nan": lambda: altered(lambda net: nn.init.constant_(net.get_parameter("hidden.bias"), torch.nan)),
    "inf": lambda: altered(lambda net: nn.init.constant_(net.get_parameter("hidden.bias"), torch.inf)),
    "evaluation mode": lambda: new().eval(),
    "other object": lambda: {"hidden.weight": 1},
    "state dict of another width": lambda: new(sizes=(2, 11, 3)).state_dict(),
    "state dict of a plain Sequential": lambda: nn.Sequential(
        nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 3)
    ).state_dict(),
    "state dict with one tensor more": lambda: OrderedDict(new().state_dict(), more=torch.zeros(1)),
}


def refused(content: bytes, blueprint: Blueprint = PLAIN, *, of_any_size: bool = True) -> None:
    """Assert that all readers refuse the file in one line, also the one for networks of any size if so asked."""
    Path("model.pkl").write_bytes(content)
    for restore in (
        lambda: models.restore_net("model.pkl", blueprint),
        lambda: models.restore_params("model.pkl", "module", blueprint),
        lambda: models.load("model.pkl"),
    )[: 3 if of_any_size else 2]:
        with pytest.raises(UserError, match=r"^model.pkl: (is|does) not [^\n]*(`|stages/network.py)$"):
            restore()


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_but_our_network_is_refused_and_nothing_in_it_runs(name: str) -> None:
    refused(bytes_of(HOSTILE[name]()), of_any_size="of another width" not in name)
    assert not Path("trap").exists()


def named(change: Callable[[Any], object]) -> nn.Module:
    """Return a network with columns, changed."""
    net = NAMED.build("module")
    change(net)
    return net


HOSTILE_COLUMNS: dict[str, Callable[[], object]] = {
    "hook": lambda: named(lambda net: net.register_forward_hook(print)),
    "hook inside": lambda: named(lambda net: net.net._forward_hooks.update({0: nn.ReLU()})),
    "forward that shadows": lambda: named(lambda net: net.__dict__.update(forward=nn.ReLU())),
    "call instead of columns": lambda: named(lambda net: setattr(net, "columns", Call(os.system, " ".join(TRAP)))),
    "no columns": lambda: named(lambda net: setattr(net, "columns", None)),
    "columns that are no JSON": lambda: named(lambda net: setattr(net, "columns", '{"features"')),
    "columns of another number": lambda: named(lambda net: setattr(net, "columns", net.columns.replace('"b",', ""))),
    "one column twice": lambda: named(lambda net: setattr(net, "columns", net.columns.replace('"b"', '"c"'))),
    "columns twice": lambda: named(lambda net: setattr(net, "more", net.columns)),
    "nan": lambda: named(lambda net: net.x_mean.fill_(torch.nan)),
    "float32 statistics": lambda: named(lambda net: net.float()),
    "another network inside": lambda: named(lambda net: setattr(net, "net", nn.Linear(2, 3))),
    "a network with columns inside": lambda: Tabular(NAMED.build("module"), NAMED.columns),  # type: ignore[arg-type]
    "call in the state": lambda: OrderedDict(
        NAMED.build("module").state_dict(), _extra_state=Call(os.system, " ".join(TRAP))
    ),
    "no columns in the state": lambda: OrderedDict(
        (name, value) for name, value in NAMED.build("module").state_dict().items() if name != "_extra_state"
    ),
}


@pytest.mark.parametrize("name", HOSTILE_COLUMNS)
def test_anything_but_our_network_with_columns_is_refused_and_nothing_in_it_runs(name: str) -> None:
    refused(bytes_of(HOSTILE_COLUMNS[name]()), NAMED)
    assert not Path("trap").exists()


def test_a_network_that_knows_other_columns_is_refused() -> None:
    models.save_net("net.pkl", NAMED.build("module"))
    models.save_params("net_params.pkl", NAMED.build("module"))
    columns = Columns(features=["sex"], targets=["ä", "b", "other"], categories={"sex": ["f", "m"]})
    for blueprint, words in (
        (NAMED._replace(columns=columns), ", with the column names of data/train.pt"),
        (PLAIN, ""),
    ):
        told = f"a network of 2 features, 10 hidden neurons and 3 outputs{words}: use the sizes"
        with pytest.raises(UserError, match=f"^net.pkl: does not hold {told}"):
            models.restore_net("net.pkl", blueprint)
        with pytest.raises(UserError, match=f"^net_params.pkl: does not hold {told}"):
            models.restore_params("net_params.pkl", "module", blueprint)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((2, 11, 3), "2 features, 11 hidden neurons and 3 outputs"),
        ((2, 9, 3), "2 features, 9 hidden neurons and 3 outputs"),
        ((1, 1, 1), "1 feature, 1 hidden neuron and 1 output"),
        ((2, 10**3, 3), "2 features, 1000 hidden neurons and 3 outputs"),
    ],
)
def test_other_sizes_are_reported_with_those_that_were_asked_for(sizes: tuple[int, int, int], words: str) -> None:
    models.save_net("net.pkl", new())
    models.save_params("net_params.pkl", new())
    for restore in (
        lambda: models.restore_net("net.pkl", Blueprint(*sizes)),
        lambda: models.restore_params("net_params.pkl", "module", Blueprint(*sizes)),
    ):
        with pytest.raises(UserError, match=f".pkl: does not hold a network of {words}: use the sizes"):
            restore()


def test_a_network_is_no_state_dict_and_the_other_way_round() -> None:
    Path("net.pkl").write_bytes(bytes_of(new()))
    Path("net_params.pkl").write_bytes(bytes_of(new().state_dict()))
    with pytest.raises(UserError, match="does not hold a network"):
        models.restore_net("net_params.pkl", PLAIN)
    with pytest.raises(UserError, match="does not hold a network"):
        models.restore_params("net.pkl", "module", PLAIN)


def rezipped(
    *,
    compress: int = zipfile.ZIP_STORED,
    rename: dict[str, str] | None = None,
    replace: dict[str, bytes] | None = None,
    more: dict[str, bytes] | None = None,
) -> bytes:
    """Return an archive of our network, rewritten with changes."""
    source, target = zipfile.ZipFile(io.BytesIO(bytes_of(new()))), io.BytesIO()
    with source, zipfile.ZipFile(target, "w", compress) as archive:
        for name in source.namelist():
            archive.writestr((rename or {}).get(name, name), (replace or {}).get(name, source.read(name)))
        for name, data in (more or {}).items():
            archive.writestr(name, data)
    return target.getvalue()


def test_a_plainly_rezipped_archive_of_ours_is_ours() -> None:
    Path("model.pkl").write_bytes(rezipped())
    assert isinstance(models.restore_net("model.pkl", PLAIN), Net)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        pickle.dumps(Call(os.system, "touch trap")),
        rezipped(compress=zipfile.ZIP_DEFLATED),
        rezipped(more={"archive/bomb": b"\0" * 10**8}),
        rezipped(more={"../../trap": b"x"}),
        rezipped(more={"/trap": b"x"}),
        rezipped(rename={"archive/data/0": "archive/../data/0"}),
        rezipped(replace={"archive/.data/serialization_id": b"\xff" * 40}),
        bytes_of(new()) + bytes(10**5),
    ],
    ids=["empty", "text", "bare pickle", "deflated", "bomb", "traversal", "absolute", "renamed", "no text", "tail"],
)
def test_archives_that_are_not_as_torch_writes_them_are_refused(content: bytes) -> None:
    refused(content)
    assert not Path("trap").exists()
    assert not Path("../../trap").exists()


def test_a_zip_bomb_is_refused_before_it_unfolds() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 28))
    refused(target.getvalue())


def test_a_symbolic_link_in_an_archive_is_never_followed() -> None:
    entry = zipfile.ZipInfo("archive/data/0")
    entry.external_attr = 0o120777 << 16
    target = io.BytesIO(bytes_of(new()))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(target, "a") as archive:
        archive.writestr(entry, "/etc/passwd")
    refused(target.getvalue())


def test_a_missing_file_and_a_folder_say_what_to_do() -> None:
    Path("folder.pkl").mkdir()
    with pytest.raises(UserError, match=r"^nowhere.pkl: is missing: run `dvc repro`$"):
        models.restore_net("nowhere.pkl", PLAIN)
    with pytest.raises(
        UserError, match=r"^folder.pkl: cannot be read: Is a directory: fix this, then run `dvc repro`$"
    ):
        models.restore_net("folder.pkl", PLAIN)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names")
def test_a_pipe_and_a_device_are_reported_rather_than_waited_for() -> None:
    os.mkfifo("net.pkl")
    for path in ("net.pkl", "/dev/zero"):
        with pytest.raises(
            UserError, match=f"^{path}: cannot be read: Not a regular file: fix this, then run `dvc repro`$"
        ):
            models.restore_net(path, PLAIN)
        with pytest.raises(
            UserError, match=f"^{path}: cannot be read: Not a regular file: fix this, then run `dvc repro`$"
        ):
            models.restore_params(path, "module", PLAIN)


FIRST = new()
FILE = bytes_of(FIRST)


@settings(max_examples=int(os.environ.get("FUZZ", "200")), deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 9)
)
def test_fuzz_a_network_with_mutated_bytes_is_refused_or_as_it_was(edits: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(FILE)
    for place, value in edits:
        content[place] = value
    Path("model.pkl").write_bytes(content[: len(content) - cut * 50])
    try:
        net = models.restore_net("model.pkl", PLAIN)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert bytes_of(net.state_dict()) == bytes_of(FIRST.state_dict())
