"""Training on several ranks, by real runs of torchrun and of processes started as any launcher starts them."""

import contextlib
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from stages import history
from stages.train.ranks import Ranks
from tests.conftest import PROJECT, Copy, before_summary
from tests.forks import Running
from tests.train.test_checkpoint import quick_checkpoints

pytest.importorskip("fcntl", reason="Windows has neither these signals nor torchrun's store")

FILES = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]


def free_port() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return str(bound.getsockname()[1])


@contextmanager
def started(*copies: Copy, port: str = "", absent: int = -1, code: str = "") -> Iterator[list[Running]]:
    """Start one rank in each copy, all but an absent one; training, or code."""
    command = ["python", "-c", code] if code else ["python", "-m", "stages", "train"]
    common = {"WORLD_SIZE": str(len(copies)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port or free_port()}
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


def ends(ranks: list[Running]) -> list[tuple[int, str]]:
    """Return the exit status and the output of each rank."""
    outputs = [rank.communicate(timeout=200)[0] for rank in ranks]
    return [(rank.wait(), output) for rank, output in zip(ranks, outputs, strict=True)]


def another_failed(end: tuple[int, str], rank: int) -> bool:
    """Return whether the rank ended with one line, which says that another one failed."""
    line = rf"rank {rank}: another rank failed or ended; see its output \([^\n]+\)\n"
    return end[0] == 2 and re.fullmatch(line, end[1]) is not None


def wait_for_checkpoint(copy: Copy, ranks: list[Running]) -> None:
    """Wait until the ranks train."""
    while not (copy.path / ".checkpoint/train").exists():
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.1)


@pytest.fixture
def long(done: Copy) -> Copy:
    """A copy with a long training."""
    quick_checkpoints(done)
    done.set(train__epochs=10**6)
    return done


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
        (
            101,
            2,
            {
                "batch_size": 8,
                "micro_batch_size": 3,
                "validation_fraction": 0.3,  # of the same points
                "epochs": 20,
                "optimizer": "Adam",
                "learning_rate": 0.01,
            },
        ),
        (3, 3, {"epochs": 20, "validation_fraction": 0.4}),  # two points for three ranks
        (101, 2, {"epochs": 2, "optimizer": "LBFGS", "optimizer_options": {"max_iter": 3}}),
        (101, 2, {"epochs": 20, "networks": 3, "batch_size": 8, "micro_batch_size": 3, "validation_fraction": 0.3}),
    ],
    ids=["micro-batches", "few-points", "lbfgs", "networks"],
)
def test_several_ranks_train_what_one_does_up_to_rounding(
    done: Copy, points: int, ranks: int, changes: dict[str, object]
) -> None:
    done.set(generate__points=points, **{f"train__{key}": value for key, value in changes.items()})
    done.stage("generate")
    done.stage("train")
    alone, losses = state(done), history.read_losses(str(done.path / "data/loss.csv"))
    with started(*[done] * ranks) as processes:
        (status, output), *others = ends(processes)
    assert (status, before_summary(output)) == (0, "")
    assert others == [(0, "")] * (ranks - 1)
    torch.testing.assert_close(state(done), alone, rtol=1e-3, atol=1e-5)
    together = history.read_losses(str(done.path / "data/loss.csv"))
    assert together.keys() == losses.keys()
    for column, values in together.items():
        assert values.tolist() == pytest.approx(losses[column].tolist(), rel=1e-3)


@pytest.mark.parametrize("networks", [1, 3])
def test_two_ranks_learn_classes_as_one_does_up_to_rounding(copy: Copy, networks: int) -> None:
    shutil.copyfile(PROJECT / "examples/penguins/params.yaml", copy.path / "params.yaml")
    copy.set(train__networks=networks, train__epochs=10, train__micro_batch_size=30)
    copy.stage("generate")
    copy.stage("train")
    alone = history.read_losses(str(copy.path / "data/loss.csv"))
    with started(copy, copy) as processes:
        assert [status for status, _ in ends(processes)] == [0, 0]
    for column, values in history.read_losses(str(copy.path / "data/loss.csv")).items():
        assert values == pytest.approx(alone[column], rel=1e-3), column


def test_dvc_starts_ranks_with_torchrun_and_tasks_of_srun_give_the_same_bits(done: Copy) -> None:
    done.set(train__launcher="torchrun --standalone --nproc-per-node 2")
    assert done.repro("train") == ["train"]
    expected = [done.read(name) for name in FILES]
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    tasks = [
        done.start("python", "-m", "stages", "train", **step, SLURM_PROCID=number, SLURM_LOCALID=number)
        for number in "01"
    ]
    assert [status for status, _ in ends(tasks)] == [0, 0]
    assert [done.read(name) for name in FILES] == expected


def test_a_rank_that_is_killed_ends_the_stage_and_leaves_the_outputs_alone(long: Copy) -> None:
    before = [long.read(name) for name in FILES]
    stage = long.start("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "stages", "train")
    try:
        wait_for_checkpoint(long, [stage])
        psutil.Process(stage.pid).children()[1].kill()
        output = stage.communicate(timeout=200)[0]
    finally:
        stage.kill()
    assert stage.wait() != 0
    assert re.search(r"(?m)^rank 0: another rank failed or ended; see its output \([^\n]+\)$", output)
    assert [long.read(name) for name in FILES] == before
    assert not list(long.path.glob("data/*.part"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_ends_the_other(long: Copy, victim: int) -> None:
    with started(long, long) as ranks:
        wait_for_checkpoint(long, ranks)
        ranks[victim].kill()
        assert another_failed(ends([ranks[1 - victim]])[0], 1 - victim)


def test_a_rank_is_told_what_it_would_train_differently_and_nothing_is_written(done: Copy, tmp_path: Path) -> None:
    before = [done.read(name) for name in FILES]
    other = done.twin(tmp_path / "other")
    other.set(train__learning_rate=0.1, train__epochs=7, generate__seed=7)
    other.stage("generate")
    path = other.path / "stages/train/loop.py"
    path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    with started(done, other) as ranks:
        first, second = ends(ranks)
    different = "train.learning_rate, data/train.pt, code, train.epochs"
    message = f"rank 1: rank 0 has different {different}: give all ranks the same params.yaml, data and code\n"
    assert second == (2, message)
    assert another_failed(first, 0)
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
        (status, output), second = ends(ranks)
    assert (status, before_summary(output)) == (0, "")  # one summary, of rank 0
    assert second == (0, "")


def test_ranks_that_wait_in_vain_end_with_a_line(long: Copy, tmp_path: Path) -> None:
    """All at once: one of three does not start, there is no such address, a rank stops while it trains."""
    long.set_constant("stages/train/ranks.py", "TIMEOUT", "timedelta(seconds=10)")
    copies = [long, *(long.twin(tmp_path / f"twin {number}") for number in range(3))]
    nowhere = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "29500"}
    with (
        started(*copies[:1] * 3, absent=1, port=(port := free_port())) as incomplete,
        started(*copies[1:2] * 2) as first_stops,
        started(*copies[2:3] * 2) as second_stops,
    ):
        lost = copies[3].start("python", "-m", "stages", "train", **nowhere)
        for copy, ranks, victim in [(copies[1], first_stops, 0), (copies[2], second_stops, 1)]:
            wait_for_checkpoint(copy, ranks)
            ranks[victim].send_signal(signal.SIGSTOP)
        cannot = (
            r"rank \d: MASTER_ADDR={}, MASTER_PORT={}: cannot connect all {} ranks; see the output of each \([^\n]+\)\n"
        )
        for status, output in ends(incomplete):
            assert status == 2
            assert re.fullmatch(cannot.format("127.0.0.1", port, 3), output)
        ((status, output),) = ends([lost])
        assert status == 2
        assert re.fullmatch(cannot.format("nowhere.invalid", "29500", 2), output)
        assert another_failed(ends(first_stops[1:])[0], 1)
        assert another_failed(ends(second_stops[:1])[0], 0)


def test_a_rank_that_waits_for_others_ends_when_it_is_asked_to(done: Copy) -> None:
    port = free_port()
    with started(done, done, absent=1, port=port) as (rank,):
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", int(port))):
                break
            assert rank.poll() is None
            time.sleep(0.1)
        rank.send_signal(signal.SIGTERM)
        assert ends([rank]) == [(-signal.SIGTERM, "")]


def test_a_port_that_is_taken_is_reported(done: Copy) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with started(done, done, absent=1, port=port) as ranks:
            ((status, output),) = ends(ranks)
    assert status == 2
    assert output.startswith(f"rank 0: MASTER_ADDR=127.0.0.1, MASTER_PORT={port}: cannot connect all 2 ranks; ")
    assert output.endswith("address already in use)\n")
    assert output.count("\n") == 1


@pytest.mark.parametrize(("asked", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_any_rank_that_is_asked_to_stop_stops_all_and_rank_0_saves(long: Copy, asked: int, number: int) -> None:
    with started(long, long) as ranks:
        wait_for_checkpoint(long, ranks)
        ranks[asked].send_signal(number)
        first, second = ends(ranks)
    assert first[0] == 2
    assert re.search(r"(?m)^rank 0: stopped at epoch \d+ of 1000000; `dvc repro` resumes from there\n\Z", first[1])
    assert another_failed(second, 1)


def test_ranks_sum_the_gradients_that_any_of_them_has(trained: Copy) -> None:
    code = """
import torch
from stages.train.ranks import joined
with joined(torch.device("cpu")) as ranks:
    frozen, both, low, high, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(5))
    frozen.requires_grad_(False)
    (frozen * both).sum().mul(ranks.rank + 1).backward()
    (high if ranks.rank else low).sum().backward()
    print(ranks.all_reduce(torch.tensor(1.0), [frozen, both, low, high, unused]).item(), frozen.grad, unused.grad)
    print(both.grad.tolist(), low.grad.tolist(), high.grad.tolist())
    print([ranks.broadcast(data * (1 - ranks.rank)) for data in (b"", bytes(3), b"text")])
"""
    said = "2.0 None None\n[3.0, 3.0] [1.0, 1.0] [1.0, 1.0]\n[b'', b'\\x00\\x00\\x00', b'text']\n"
    with started(trained, trained, code=code) as ranks:
        assert ends(ranks) == [(0, said)] * 2
