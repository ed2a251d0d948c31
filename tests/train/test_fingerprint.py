from pathlib import Path

import pytest
import torch

from stages import dataset
from stages.dataset import Dataset
from stages.runtime import files, params
from stages.train.checkpoint import of_training
from stages.train.stage import Params
from tests.conftest import LESSON, PROJECT


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the fingerprint of a training of the lesson says of the code."""
    monkeypatch.chdir(tmp_path)
    dataset.write("data/train.pt", Dataset(torch.ones(2, 1), torch.ones(2, 1)))
    lesson = params.check(str(LESSON), params.load(str(LESSON)), Params)
    return of_training(lesson.kernels, lesson.network, lesson.train)["code"]


@pytest.mark.parametrize("room", ["", "checkpoint", "compiled", "optim"])
def test_the_code_is_every_module_of_train_and_of_the_rooms_within(code: str, room: str) -> None:
    modules = [*(PROJECT / "stages/train" / room).glob("*.py")]
    assert modules
    for module in modules:
        assert files.digest(str(module)) in code, module


def test_the_code_is_what_the_stage_imports_from_elsewhere(code: str) -> None:
    for module in ("network", "models", "tabular", "dataset", "runtime/files", "runtime/params"):
        assert files.digest(str(PROJECT / f"stages/{module}.py")) in code, module
    assert files.digest(str(PROJECT / "stages/plot/figure.py")) not in code
