"""Training on several ranks, by real runs of torchrun."""

import os
import signal
import socket
import subprocess
import time

import pytest
import torch

from stages import history
from stages.train.ranks import Ranks
from tests.conftest import ENVIRONMENT, Copy

FILES = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]


def torchrun(ranks: int) -> list[str]:
    return ["torchrun", "--standalone", "--nproc-per-node", str(ranks), "-m", "stages", "train"]


def free_port() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return str(bound.getsockname()[1])


def state(copy: Copy) -> dict[str, torch.Tensor]:
    return torch.load(copy.path / "data/net_params.pkl", weights_only=True)


@pytest.mark.parametrize("n", [0, 1, 7, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_even_and_together_all_rows(n: int, size: int) -> None:
    shares = [range(n)[Ranks(rank, size).share(n)] for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("points", "ranks", "changes"),
    [
        (101, 2, {}),
        (101, 2, {"batch_size": 8, "micro_batch_size": 3, "epochs": 20, "optimizer": "Adam", "learning_rate": 0.01}),
        (2, 3, {"epochs": 20}),
        (101, 2, {"epochs": 2, "optimizer": "LBFGS", "optimizer_options": {"max_iter": 3}}),
    ],
)
def test_several_ranks_train_what_one_does_up_to_rounding(
    copy: Copy, points: int, ranks: int, changes: dict[str, object]
) -> None:
    copy.set(generate__points=points, **{f"train__{key}": value for key, value in changes.items()})
    copy.stage("generate")
    copy.stage("train")
    alone, losses = state(copy), history.read_losses(str(copy.path / "data/loss.csv"))
    copy.run(*torchrun(ranks))
    torch.testing.assert_close(state(copy), alone, rtol=1e-3, atol=1e-5)
    assert history.read_losses(str(copy.path / "data/loss.csv")) == pytest.approx(losses, rel=1e-3)


def test_as_many_ranks_give_the_same_bits_and_dvc_starts_them(done: Copy) -> None:
    done.set(train__launcher="torchrun --standalone --nproc-per-node 2")
    assert done.repro("train") == ["train"]
    first = [done.read(name) for name in FILES]
    done.run(*torchrun(2))
    assert [done.read(name) for name in FILES] == first


def test_tasks_of_srun_are_ranks_as_those_of_torchrun_are(copy: Copy) -> None:
    copy.stage("generate")
    copy.run(*torchrun(2))
    expected = [copy.read(name) for name in FILES]
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    tasks = [
        subprocess.Popen(
            ["python", "-m", "stages", "train"],
            cwd=copy.path,
            env=ENVIRONMENT | step | {"SLURM_PROCID": number, "SLURM_LOCALID": number},
        )
        for number in "01"
    ]
    assert [task.wait(timeout=60) for task in tasks] == [0, 0]
    assert [copy.read(name) for name in FILES] == expected


def test_a_rank_that_dies_ends_the_stage_and_leaves_the_outputs_alone(done: Copy) -> None:
    before = [done.read(name) for name in FILES]
    done.set(train__epochs=10**7)
    stage = subprocess.Popen(torchrun(2), cwd=done.path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        ranks: list[int] = []
        while len(ranks) < 2 and stage.poll() is None:
            children = subprocess.run(["pgrep", "-P", str(stage.pid)], capture_output=True, text=True).stdout
            ranks = [int(child) for child in children.split()]
        while not (done.path / ".checkpoint/train").exists() and stage.poll() is None:
            time.sleep(0.1)  # until both train
        os.kill(ranks[1], signal.SIGKILL)
        assert "another rank failed; see its output" in stage.communicate(timeout=60)[1]
    finally:
        stage.kill()
    assert stage.returncode != 0
    assert [done.read(name) for name in FILES] == before
    assert not list(done.path.glob("data/*.part"))


def test_a_mistake_is_told_by_each_rank_in_a_line(copy: Copy) -> None:
    copy.stage("generate")
    copy.set(train__learning_rate=1000)
    told = copy.run(*torchrun(2), status=1)
    assert "rank 0: the loss is inf at epoch " in told or "rank 1: the loss is inf at epoch " in told
