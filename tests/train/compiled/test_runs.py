"""Trainings that are really compiled: their gradient, their runs, and what is left of those that are killed."""

import copy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages import history
from stages.train.batches import Batches, Points
from stages.train.compiled import library
from stages.train.compiled.vectors import Vectors
from stages.train.optim import new_optimizer
from tests.conftest import PROJECT, Copy, before_summary
from tests.train.compiled.test_steps import ONE, Odd, both, compiled_steps

COMPILED = {
    "train__steps": "compiled",
    "train__batch_size": 30,
    "train__optimizer": "AdamW",
    "train__learning_rate": 0.02,
    "train__epochs": 40,
    "train__validation_fraction": 0.2,
    "train__schedule": "CosineAnnealingLR",
}


@pytest.fixture(scope="module")
def compiled_training(trained: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy that has trained with compiled steps, whose library is in its folder `cache`."""
    copy = trained.twin(tmp_path_factory.mktemp("compiled"))
    copy.set(**COMPILED)
    output = copy.stage("train", 2, **without_compiler(copy))
    assert output == (
        "params.yaml: train.steps: compiled steps need the C++ compiler g++: install the package g++ (Debian, Ubuntu), "
        "gcc-c++ (Fedora) or the command line tools of Xcode (macOS), or use eager\n"
    )
    assert before_summary(copy.stage("train", XDG_CACHE_HOME=str(copy.path / "cache"))) == ""
    return copy


def without_compiler(copy: Copy) -> dict[str, str]:
    """Return an environment without a C++ compiler, but with the copy's libraries."""
    return {"PATH": str(Path(sys.executable).parent), "XDG_CACHE_HOME": str(copy.path / "cache")}


def test_a_training_is_compiled_once_and_learns_what_an_eager_one_does(compiled_training: Copy, tmp_path: Path) -> None:
    copy, environment = compiled_training.twin(tmp_path), without_compiler(compiled_training)
    copy.stage("evaluate")

    def losses() -> Tensor:
        return torch.from_numpy(history.read_losses(str(copy.path / "data/loss.csv"))["validation_loss"])

    compiled_losses, bits = losses(), copy.read("data/net.pkl")
    other = {"learning_rate": 0.01, "epochs": 30, "seed": 4, "schedule": "StepLR", "schedule_options": {"step_size": 9}}
    copy.set(**{f"train__{key}": value for key, value in other.items()}, generate__noise=0.1)
    copy.stage("train", 0, **environment)
    copy.set(**COMPILED, train__seed=11, train__schedule_options={})
    copy.stage("train", 0, **environment)
    assert copy.read("data/net.pkl") == bits
    copy.set(train__steps="eager")
    copy.stage("train")
    torch.testing.assert_close(compiled_losses, losses(), rtol=1e-3, atol=1e-6)


def test_a_compiled_training_killed_again_and_again_ends_with_the_bits_of_one_left_alone(
    compiled_training: Copy, tmp_path: Path
) -> None:
    from tests.train.test_checkpoint import PYTHON, ends_with_the_same_bits_however_often_it_is_killed  # not on Windows

    copy = compiled_training.twin(tmp_path)
    copy.set(train__epochs=4000)
    ends_with_the_same_bits_however_often_it_is_killed(copy, PYTHON, **without_compiler(compiled_training))


def test_several_networks_learn_from_a_table_what_eager_steps_do_however_often_they_are_killed(
    copy: Copy,
) -> None:
    from tests.train.test_checkpoint import PYTHON, ends_with_the_same_bits_however_often_it_is_killed  # not on Windows

    shutil.copyfile(PROJECT / "examples/auto-mpg/params.yaml", copy.path / "params.yaml")
    copy.set(train__networks=3, train__steps="compiled", train__epochs=40, train__patience=None)
    copy.stage("generate")
    cache = str(copy.path / "cache")

    def losses() -> dict[str, Any]:
        return history.read_losses(str(copy.path / "data/loss.csv"))

    copy.stage("train", XDG_CACHE_HOME=cache)
    compiled_losses = losses()
    copy.set(train__steps="eager")
    copy.stage("train")
    for column, expected in losses().items():
        assert compiled_losses[column] == pytest.approx(expected, rel=1e-2, abs=1e-4), column
    copy.set(train__steps="compiled", train__epochs=1500)
    ends_with_the_same_bits_however_often_it_is_killed(copy, PYTHON, XDG_CACHE_HOME=cache)


def test_steps_are_chosen_by_what_is_there_and_what_it_saves(compiled_training: Copy, tmp_path: Path) -> None:
    copy = compiled_training.twin(tmp_path)
    environment = without_compiler(copy)
    copy.set(train__steps="auto")

    def choice(**changes: object) -> str:
        copy.set(**changes)
        return copy.stage("train", 0, **environment).partition("; ")[2].partition(" -> ")[0]

    assert choice() == "eager steps, since they take only about 0.04 s"
    assert choice(train__epochs=6000) == "compiled steps"


def test_a_library_is_made_and_used_where_paths_have_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = tmp_path / "a b\u00e9"
    (spaced / "temporary").mkdir(parents=True)
    (spaced / "g++").symlink_to(shutil.which("g++") or "")
    shutil.copyfile(library.LOOP, spaced / "loop.cpp")
    monkeypatch.setattr(tempfile, "tempdir", str(spaced / "temporary"))
    monkeypatch.setenv("CXX", str(spaced / "g++"))
    monkeypatch.setattr(library, "LOOP", spaced / "loop.cpp")
    monkeypatch.setattr(library, "FOLDER", spaced / "new")
    ours, theirs = both(net=Odd(), widths=(2, 6, 1), epochs=2)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert len(list((spaced / "new").iterdir())) == 1
    assert not list((spaced / "temporary").iterdir())


def test_the_compiled_gradient_of_many_points_is_that_of_float64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    x = torch.rand(1_000_000, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    y = x.square().sum(1, keepdim=True)
    torch.manual_seed(3)
    net = Odd()
    exact = copy.deepcopy(net).double()
    optimizer = new_optimizer("SGD", net, 1e-3, {})
    steps = compiled_steps(net, optimizer, nn.MSELoss(), Batches(Points(x, y, len(x)), None, 65_536, ONE, [0]))
    [gradient], [loss] = steps.calls.gradients(Vectors(net, optimizer, steps.learning), x, y)
    expected = nn.functional.mse_loss(exact(x.double()), y.double())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    theirs = torch.cat([value.grad.reshape(-1) for value in exact.parameters() if value.grad is not None])
    ours = gradient[: len(theirs)].double()
    assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()
