"""The environment variables that launchers set."""

import os

import pytest

from stages.runtime.errors import UserError
from stages.runtime.launcher import SLURM, launched_rank


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})  # what launched_rank sets there does not outlive the test


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE: must be a whole number from 1 to 1000000, got ''"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: must be a whole number from 1 to 1000000, got '0'"),
        ({"WORLD_SIZE": "2"}, "RANK: must be a whole number from 0 to 1, got ''"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK: must be a whole number from 0 to 1, got 'x'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK: must be a whole number from 0 to 1, got '-1'"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK: must be a whole number from 0 to 0, got '1'"),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": ""}, "LOCAL_RANK: must be a whole number from 0 to 0, got ''"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_PORT: must be a whole number from 1 to 65535, got ''"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "65536"},
            "MASTER_PORT: must be a whole number from 1 to 65535, got '65536'",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "29500"},
            "MASTER_ADDR: must be the address of rank 0's machine, got ''",
        ),
        (
            {"SLURM_STEP_NUM_TASKS": ""},
            "SLURM_STEP_NUM_TASKS, for WORLD_SIZE: must be a whole number from 1 to 1000000, got ''",
        ),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID, for RANK: must be a whole number from 0 to 1, got ''"),
    ],
)
def test_what_a_launcher_sets_wrongly_is_reported(environment: dict[str, str], message: str) -> None:
    os.environ.update(environment)
    with pytest.raises(UserError) as raised:
        launched_rank()
    assert str(raised.value) == message


def test_a_process_without_a_launcher_is_rank_0() -> None:
    assert launched_rank() == 0


def test_what_srun_sets_is_copied_to_the_names_that_torchrun_uses_unless_they_are_set() -> None:
    os.environ.update(zip(SLURM.values(), ["3", "1", "4", "10.0.0.1"], strict=True))
    os.environ["MASTER_ADDR"] = "10.0.0.2"
    assert launched_rank() == 3
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    assert [os.environ[name] for name in names] == ["3", "1", "4", "10.0.0.2", "29500"]
