"""Stages as DVC runs them: as a process of their own."""

from typing import Any

import pytest

from tests.conftest import Copy

FILES = [
    "train.pt",
    "test.pt",
    "net.pkl",
    "net_params.pkl",
    "loss.csv",
    "history.npz",
    "metrics.json",
    "predictions.csv",
]
PICTURES = ["plots/data.png", "plots/loss.png", "plots/learning.gif", "plots/learning/0.png", "plots/learning/200.png"]
HOSTILE: dict[str, Any] = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AUTO",
    "OMP_NUM_THREADS": "7",
    "MKL_NUM_THREADS": "7",
    "OPENBLAS_CORETYPE": "Haswell",
    "PYTHONHASHSEED": "42",
    "LANG": "tr_TR.ISO-8859-9",
    "LC_ALL": "C",
    "TZ": "Asia/Kathmandu",
    "PYTHONUTF8": "0",
}


def test_a_hostile_environment_changes_no_byte(copy: Copy, trained: Copy) -> None:
    for stage in ("generate", "train", "plot", "evaluate"):
        copy.stage(stage, **HOSTILE)
    for name in FILES + PICTURES:
        assert copy.read(f"data/{name}") == trained.read(f"data/{name}"), name


def test_native_kernels_leave_the_environment_alone(copy: Copy) -> None:
    code = "import os, sys; sys.argv[1:] = ['show']; import runpy; runpy.run_module('stages', run_name='__main__')"
    (copy.path / "stages/show").mkdir()
    (copy.path / "stages/show/stage.py").write_text(
        "import os\nfrom stages.params import StageParams as Params\n"
        "def run(params): print(params.kernels, os.environ['OMP_NUM_THREADS'])\n"
    )
    assert copy.run("python", "-c", code, OMP_NUM_THREADS="7") == "portable 1\n"
    copy.set(kernels="native")
    assert copy.run("python", "-c", code, OMP_NUM_THREADS="7") == "native 7\n"


def test_a_users_mistake_ends_with_status_2_and_a_line_a_fault(copy: Copy) -> None:
    copy.set(train__epochs=0, network__style="x")
    assert copy.stage("train", status=2).splitlines() == [
        "params.yaml: network.style: must be 'module' or 'sequential', got 'x'",
        "params.yaml: train.epochs: must be greater than 0, got 0",
    ]


@pytest.mark.parametrize("words", [[], ["trian"], ["network"], ["__main__"], ["os.path"], ["train", "plot"]])
def test_what_is_no_stage_is_told(trained: Copy, words: list[str]) -> None:
    told = trained.run("python", "-m", "stages", *words, status=2)
    stages = "evaluate, generate, plot, train"
    assert told == f"python -m stages STAGE: must be one of {stages}, got {' '.join(words)!r}\n"


def test_the_users_own_settings_of_tqdm_change_nothing(copy: Copy) -> None:
    copy.set(train__epochs=2)
    copy.stage("generate")
    assert copy.stage("train", TQDM_MININTERVAL="often", TQDM_DESC="mine") == ""


def test_a_bug_keeps_its_traceback(copy: Copy) -> None:
    (copy.path / "stages/broken").mkdir()
    (copy.path / "stages/broken/stage.py").write_text(
        "from stages.params import StageParams as Params\ndef run(params): 1 / 0\n"
    )
    assert "Traceback" in copy.stage("broken", status=1)
