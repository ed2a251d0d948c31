"""Training on several ranks, by real runs of torchrun and of processes started as any launcher starts them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from stages import history
from stages.train.ranks import Ranks
from tests.conftest import ENVIRONMENT, Copy, before_summary
from tests.forks import Running

pytest.importorskip("fcntl", reason="Windows has neither these signals nor torchrun's store")

FILES = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]


def torchrun(ranks: int) -> list[str]:
    return ["torchrun", "--standalone", "--nproc-per-node", str(ranks), "-m", "stages", "train"]


def free_port() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return str(bound.getsockname()[1])


@contextmanager
def started(*copies: Copy, port: str = "", absent: int = -1, code: str = "") -> Iterator[list[Running]]:
    """Start one rank in each copy, all but an absent one; training, or code."""
    port = port or free_port()
    python = "python" if absent < 0 else sys.executable  # no fork: this rank waits, of which torch is to say nothing
    command = [python, "-c", code] if code else [python, "-m", "stages", "train"]
    common = {"WORLD_SIZE": str(len(copies)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        copy.start(*command, **common, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank, copy in enumerate(copies)
        if rank != absent
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def told(ranks: list[Running]) -> list[tuple[int, str]]:
    """Return how each rank ended and what it said."""
    said = [rank.communicate(timeout=60)[0] for rank in ranks]
    return [(rank.wait(), text) for rank, text in zip(ranks, said, strict=True)]


def training(copy: Copy, ranks: list[Running]) -> None:
    """Wait until the ranks train."""
    while not (copy.path / ".checkpoint/train").exists():
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.1)


@pytest.fixture
def impatient(trained: Copy, tmp_path: Path) -> Copy:
    """A copy with a long training, whose ranks wait for seconds rather than minutes."""
    copy = trained.twin(tmp_path)
    for name, times in [
        ("rendezvous", {"START": 20.0}),
        ("ranks", {"STEP": 5.0}),
        ("checkpoint", {"INTERVAL": 0.1}),
    ]:
        path = copy.path / f"stages/train/{name}.py"
        text = path.read_text(encoding="utf-8")
        for constant, seconds in times.items():
            text, changes = re.subn(rf"(?m)^{constant} = [\d.]+", f"{constant} = {seconds}", text)
            assert changes == 1
        path.write_text(text, encoding="utf-8")
    copy.set(train__epochs=10**6)
    return copy


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
        (101, 2, {"batch_size": 8, "epochs": 20, "validation_fraction": 0.3}),  # of the same points
        (3, 3, {"epochs": 20, "validation_fraction": 0.4}),
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
    with started(*[copy] * ranks) as processes:
        (status, text), *others = told(processes)
    assert (status, before_summary(text)) == (0, "")
    assert others == [(0, "")] * (ranks - 1)
    torch.testing.assert_close(state(copy), alone, rtol=1e-3, atol=1e-5)
    together = history.read_losses(str(copy.path / "data/loss.csv"))
    assert together.keys() == losses.keys()
    for column, values in together.items():
        assert values.tolist() == pytest.approx(losses[column].tolist(), rel=1e-3)


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
            ranks = [child.pid for child in psutil.Process(stage.pid).children()]
        while not (done.path / ".checkpoint/train").exists() and stage.poll() is None:
            time.sleep(0.1)  # until both train
        os.kill(ranks[1], signal.SIGKILL)
        assert re.search(
            r"rank 0: (rank 1 ended|no answer from rank 1); see its output\n", stage.communicate(timeout=60)[1]
        )
    finally:
        stage.kill()
    assert stage.returncode != 0
    assert [done.read(name) for name in FILES] == before
    assert not list(done.path.glob("data/*.part"))


def test_a_mistake_is_reported_by_each_rank_in_a_line(copy: Copy) -> None:
    copy.stage("generate")
    copy.set(train__learning_rate=1000)
    told = copy.run(*torchrun(2), status=1)
    assert "rank 0: the loss is inf at epoch " in told or "rank 1: the loss is inf at epoch " in told


def test_a_rank_that_is_about_to_train_something_else_is_named_and_nothing_is_trained(
    done: Copy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = [done.read(name) for name in FILES]
    cases: list[tuple[dict[str, object], str]] = [
        ({"train__learning_rate": 0.1, "kernels": "native"}, "kernels, train.learning_rate"),
        ({"generate__seed": 7}, "data/train.pt"),
        ({}, "code"),
    ]
    for changes, names in cases:
        other = done.twin(tmp_path_factory.mktemp("other"))
        other.set(**changes)
        if "data" in names:
            other.stage("generate")
        if names == "code":
            path = other.path / "stages/train/loop.py"
            path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
        message = f"rank 1 has different {names}: give all machines the same params.yaml, data and code\n"
        with started(done, other) as ranks:
            assert told(ranks) == [(2, f"rank 0: {message}"), (2, f"rank 1: {message}")]
    assert [done.read(name) for name in FILES] == before


def test_ranks_whose_machines_differ_train_together(done: Copy) -> None:
    done.set(kernels="native", train__epochs=2)
    code = """
import os, runpy, sys
os.environ["OMP_NUM_THREADS"] = os.environ["RANK"] + "1"
sys.argv[1:] = ["train"]
runpy.run_module("stages", run_name="__main__")
"""
    with started(done, done, code=code) as ranks:
        (status, said), silent = told(ranks)
        assert status == 0
        assert before_summary(said) == ""  # one summary, of rank 0
        assert silent == (0, "")


def test_a_rank_that_does_not_come_is_named(impatient: Copy) -> None:
    with started(impatient, impatient, impatient, absent=1) as ranks:
        message = "rank 1 did not start within 20 seconds: start all 3 ranks\n"
        assert told(ranks)[0] == (2, f"rank 0: {message}")
    with started(impatient, impatient, absent=0, port="1") as ranks:
        message = "MASTER_ADDR=127.0.0.1, MASTER_PORT=1: rank 0 did not start there within 20 seconds\n"
        assert told(ranks) == [(2, f"rank 1: {message}")]


def test_a_port_that_is_taken_is_reported(impatient: Copy) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with started(impatient, impatient, absent=1, port=port) as ranks:
            message = (
                f"MASTER_ADDR=127.0.0.1, MASTER_PORT={port}: the port is taken: choose another one on all machines\n"
            )
            assert told(ranks) == [(2, f"rank 0: {message}")]


def test_an_address_that_does_not_exist_is_reported(trained: Copy) -> None:
    told = trained.stage("train", 2, RANK="0", WORLD_SIZE="2", MASTER_ADDR="nowhere.invalid", MASTER_PORT="29500")
    assert re.fullmatch(r"rank 0: MASTER_ADDR=nowhere.invalid, MASTER_PORT=29500: no such address: [^\n]+\n", told)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_or_is_stopped_is_named_by_the_other(impatient: Copy, victim: int, number: int) -> None:
    with started(impatient, impatient) as ranks:
        training(impatient, ranks)
        ranks[victim].send_signal(number)
        other = 1 - victim
        assert told([ranks[other]]) == [(2, f"rank {other}: no answer from rank {victim}; see its output\n")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("asked", [0, 1])
def test_any_rank_that_is_asked_to_stop_stops_all_and_rank_0_saves(impatient: Copy, asked: int, number: int) -> None:
    with started(impatient, impatient) as ranks:
        training(impatient, ranks)
        ranks[asked].send_signal(number)
        first, second = told(ranks)
    assert re.fullmatch(r"rank 0: stopped at epoch \d+ of 1000000; `dvc repro` resumes from there\n", first[1])
    assert second == (2, "rank 1: rank 0 ended; see its output\n")
    assert first[0] == 2


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE: must be a whole number from 1 to 1000000, got ''"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: must be a whole number from 1 to 1000000, got '0'"),
        ({"WORLD_SIZE": "2"}, "RANK: must be a whole number from 0 to 1, got ''"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK: must be a whole number from 0 to 1, got 'x'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK: must be a whole number from 0 to 1, got '-1'"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "rank 1: RANK: must be a whole number from 0 to 0, got '1'"),
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
def test_what_a_launcher_sets_wrongly_is_reported(trained: Copy, environment: dict[str, str], message: str) -> None:
    assert trained.stage("train", status=2, **environment).removeprefix("rank 0: ") == f"{message}\n"


def test_a_frozen_parameter_stays_out_of_what_ranks_sum(trained: Copy) -> None:
    code = """
import torch
from stages.train.ranks import joined
with joined(torch.device("cpu")) as ranks:
    frozen, free = torch.nn.Parameter(torch.ones(2), False), torch.nn.Parameter(torch.ones(2))
    (frozen * free).sum().mul(ranks.rank + 1).backward()
    print(ranks.all_reduce(torch.tensor(1.0), [frozen, free]).item(), frozen.grad, free.grad.tolist())
"""
    with started(trained, trained, code=code) as ranks:
        assert told(ranks) == [(0, "2.0 None [3.0, 3.0]\n")] * 2


def test_a_gradient_that_one_rank_alone_has_is_that_of_all(trained: Copy) -> None:
    code = """
import torch
from stages.train.ranks import joined
with joined(torch.device("cpu")) as ranks:
    low, high, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    (high if ranks.rank else low).sum().backward()
    ranks.all_reduce(torch.tensor(1.0), [low, high, unused])
    print(low.grad.tolist(), high.grad.tolist(), unused.grad)
"""
    with started(trained, trained, code=code) as ranks:
        assert told(ranks) == [(0, "[1.0, 1.0] [1.0, 1.0] None\n")] * 2
