"""tools/sweep: what it runs, what it finds and what it says, by real runs; its statistics and its picture."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from tests.conftest import Copy
from tools.sweep import slots
from tools.sweep.picture import calls_for_log, sweep_axes
from tools.sweep.summary import LEVEL, Value, best_of, gap, table


def sweep(copy: Copy, command: str, status: int = 0) -> str:
    return copy.run("python", "-m", "tools.sweep", *command.split(), status=status)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("> python -m stages train\nthe loss is inf at epoch 2\n", "the loss is inf at epoch 2"),
        ("> python -m stages train\n", "failed to reproduce 'train'"),
        ("train: loss 0.1 after 2 epochs -> data/net.pkl (1.0 s)\n", "failed to reproduce 'train'"),
    ],
)
def test_the_reason_is_what_a_failed_stage_said_or_else_dvc(said: str, reason: str) -> None:
    assert slots._reason(f"Running stage 'train':\n{said}ERROR: failed to reproduce 'train'\n") == reason


def test_a_sweep_takes_along_what_is_uncommitted_and_notices_what_changes(done: Copy) -> None:
    copy = done
    copy.set(plot__frame_seconds=0.2)
    (copy.path / "data/raw/own.csv").write_text("x,y\n1,2\n", encoding="utf-8")  # git does not track it
    status = copy.run("git", "status", "--porcelain", "--untracked-files=all")
    params, model = copy.read("params.yaml"), copy.read("data/net.pkl")

    assert sweep(copy, "plot.dpi 30").count("(found)") == 0
    assert copy.run("git", "status", "--porcelain", "--untracked-files=all") == status
    assert (copy.read("params.yaml"), copy.read("data/net.pkl")) == (params, model)
    (ref,) = copy.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert "frame_seconds: 0.2" in copy.run("git", "show", f"{ref}:params.yaml")
    assert "nfiles: 3" in copy.run("git", "show", f"{ref}:dvc.lock")  # data/raw with own.csv

    copy.commit("the same params, code and data")
    assert sweep(copy, "plot.dpi 30 40").count("(found)") == 1
    assert sweep(copy, "plot.dpi 30 --metric loss", status=2).startswith("--metric must be one of max_abs_difference, ")

    with (copy.path / "stages/plot/data.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")
    assert sweep(copy, "plot.dpi 30").count("(found)") == 0


def test_a_run_that_fails_takes_one_line_and_the_others_go_on_each_with_its_share_of_the_cores(done: Copy) -> None:
    told = Path(done.path, "threads")
    done.set(train__launcher=f"echo $OMP_NUM_THREADS >> '{told}'; python")
    printed = sweep(done, "train.learning_rate 1e20 0.2 --jobs 2", status=2).splitlines()
    failure = "train.learning_rate 1e+20: failed: the loss is inf at epoch 1: lower train.learning_rate"
    assert sorted(line.partition("] ")[2].partition(" (")[0] for line in printed if line.startswith("[")) == [
        "train.learning_rate 0.2: test_rmse 0.0644419",
        failure,
    ]
    assert printed[-1] == "1 run of 2 failed; the same command tries again"
    assert [line.split() for line in printed if line.startswith(("0.2", "1e+20"))] == [
        ["0.2", "0.06444", "-", "1", "best"],
        ["1e+20", "-", "-", "0", "-", "-"],
    ]
    cores = os.cpu_count() or 1
    assert told.read_text(encoding="utf-8").split() == [str(max(1, cores // 2))] * 2


@pytest.mark.parametrize(
    ("command", "faults"),
    [
        (
            "train.learning_rte 0.2 abc",
            "params.yaml: train.learning_rte: is not a known key, got 0.2: did you mean 'learning_rate'?\n"
            "params.yaml: train.learning_rte: is not a known key, got 'abc': did you mean 'learning_rate'?\n",
        ),
        (
            "train.epochs 1,2",
            "train.epochs=1,2: is not a value that `dvc exp run -S` accepts: "
            "separate several values by spaces, and quote text that has other signs\n",
        ),
    ],
)
def test_what_the_user_can_fix_is_told_in_a_line_for_each_fault(copy: Copy, command: str, faults: str) -> None:
    assert sweep(copy, command, status=2) == faults


def test_a_folder_without_commits_is_told_in_one_line(copy: Copy) -> None:
    copy.run("git", "update-ref", "-d", "HEAD")
    assert sweep(copy, "plot.dpi 30", status=2).count("\n") == 1


def value(shown: str, results: list[float]) -> Value:
    number = float(shown) if shown.replace(".", "").isdecimal() else None
    return Value(shown, number, dict(enumerate(results)))


@pytest.mark.parametrize("maximize", [False, True])
def test_p_is_that_of_students_t_for_differences_seed_by_seed(maximize: bool) -> None:
    sign = -1 if maximize else 1
    best = value("1", [0.0, 0.0])
    two = gap(value("2", [sign * 1.0, sign * 2.0]), best, 1, maximize=maximize)  # t = 1.5 / 0.5
    assert two.p == pytest.approx(0.5 - math.atan(3) / math.pi)  # its distribution function has a closed form
    best = value("1", [5.0, 6.0, 7.0])
    three = gap(value("2", [5.0 + sign, 6.0 + 2 * sign, 7.0 + 3 * sign]), best, 4, maximize=maximize)
    t = 2 / (1 / math.sqrt(3))
    assert three.p == pytest.approx(4 * (0.5 - t / (2 * math.sqrt(2 + t * t))))
    assert (three.mean, three.error) == pytest.approx((2, 1 / math.sqrt(3)))


def test_the_best_of_equal_values_is_rarely_said_to_be_worse() -> None:
    generator = np.random.default_rng(1)
    wrong, sweeps = 0, 1000
    for _ in range(sweeps):
        luck = generator.normal(size=4)  # what runs with the same seed share
        values = [value(str(k), list(luck + generator.normal(size=4))) for k in range(4)]
        best = best_of(values, maximize=False)
        wrong += values[0] is not best and gap(values[0], best, 3, maximize=False).p <= LEVEL  # values[0] is as good
    assert wrong / sweeps <= LEVEL


def test_the_table_says_which_differences_are_larger_than_chance() -> None:
    values = [value("0.1", [5.0, 6.0, 7.0]), value("0.2", [1.0, 2.0, 3.01]), value("0.4", [1.0, 2.5, 2.9])]
    assert table(values, "rate", "rmse", maximize=False) == [
        "rate  rmse   spread  n  behind the best  p",
        "0.1   6      1       3  3.997 ± 0.0033   7e-07",
        "0.2   2.003  1.005   3  best",
        "0.4   2.133  1.002   3  0.13 ± 0.19      0.56",
        "",
        "Larger than chance (p ≤ 0.05): 0.2 is better than 0.1.",
        "Not larger than chance: the difference between 0.2 and 0.4.",
    ]
    (*_, verdict) = table([value("0.1", [2.0]), value("0.2", [1.0])], "rate", "rmse", maximize=True)
    assert verdict.startswith("0.1 has the best mean, perhaps by chance")


@pytest.mark.parametrize(
    ("numbers", "is_log"),
    [
        ([0.05, 0.1, 0.2], True),
        ([10, 20, 30], False),
        ([1, 2], False),
        ([1, 10], True),
        ([0, 1, 10, 100], False),
        ([3], False),
    ],
)
def test_the_axis_is_logarithmic_where_the_values_are_spaced_so(numbers: list[float], is_log: bool) -> None:
    assert calls_for_log(np.array(numbers)) == is_log


def test_the_picture_has_each_run_the_means_and_the_spreads() -> None:
    values = [value("Adam", [1.0, 3.0]), value("SGD", [2.0, 5.0])]
    axes = sweep_axes(Figure(), values, "train.optimizer", "test_rmse")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Adam", "SGD"]
    runs = np.asarray(axes.lines[0].get_xydata())
    assert runs.tolist() == [[0, 1], [0, 3], [1, 2], [1, 5]]
    (bars,) = axes.containers
    assert isinstance(bars, ErrorbarContainer)
    assert bars.lines[0] is not None
    means = np.asarray(bars.lines[0].get_xydata())
    spreads = np.asarray(bars.lines[2][0].get_segments())
    assert means.tolist() == [[0, 2], [1, 3.5]]
    assert np.allclose(spreads[0, :, 1], [2 - math.sqrt(2), 2 + math.sqrt(2)])
    assert axes.get_xscale() == "linear"
    axes = sweep_axes(Figure(), [value("8", [0.1]), value("80", [4.0])], "network.hidden", "test_rmse")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert np.allclose(axes.get_xlim(), [8 / 10**0.1, 80 * 10**0.1])
