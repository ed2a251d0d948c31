"""tools/compare: its statistics, by simulation and by hand; what it says of revisions; its picture."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.container import ErrorbarContainer

from benchmarks.differences import lesson, rates, residuals_of, trainings
from stages import residuals
from stages.residuals import Residuals
from tests.conftest import Copy
from tools.compare import picture
from tools.compare.change import BETTER, CHANCE, SAME, UNKNOWN, WORSE, change, standard_error, t_quantile
from tools.compare.sides import Side
from tools.compare.table import as_markdown, as_text, compare

Figure = picture.Figure


def drawn(seed: int, networks: int, noise: float, rows: int = 200) -> Residuals:
    """Return the errors of networks that predict numbers with independent noise, of the same rows whatever the seed."""
    true = torch.linspace(-1, 1, rows, dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(seed)
    each = true + noise * torch.randn(networks, rows, 1, generator=generator, dtype=torch.float64)
    return residuals_of(each, true)


def side(name: str, errors: Residuals, **params: Any) -> Side:
    return Side(name, errors, {"train.seed": 11, **params})


@pytest.mark.slow
def test_only_seeds_rarely_make_a_difference_and_a_real_one_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # for the checkpoints
    points, test, document = lesson()
    pairs, networks = 40, 20
    fast = [residuals_of(some, test.y) for some in trainings(points, test, document, 2 * pairs, networks)]
    document["train"]["learning_rate"] = 0.1
    slow = [residuals_of(some, test.y) for some in trainings(points, test, document, pairs, networks)]
    for metric in ("rmse", "mae"):
        false_alarms, of_rows_alone, _ = rates(fast[::2], fast[1::2], metric)
        assert false_alarms <= 0.05
        assert of_rows_alone > 0.5  # as it would be if the seeds did not enter
        power, _, held = rates(slow, fast[:pairs], metric)
        assert power >= 0.9
        assert held >= 0.85


def test_the_interval_is_the_one_computed_by_hand() -> None:
    old, new = drawn(1, 4, 1.0), drawn(2, 3, 0.9)
    variance, parts = 0.0, []
    for one in (old, new):
        logs = [math.log(value) for value in one.without["rmse"]]
        mean = sum(logs) / len(logs)
        parts.append((len(logs) - 1) / len(logs) * sum((value - mean) ** 2 for value in logs))
    old_squares, new_squares = (one.errors[:, 0] ** 2 for one in (old, new))
    # log RMSE = log(mean of squares) / 2: its derivative is half of the squares over their mean
    by_row = new_squares / new_squares.mean() / 2 - old_squares / old_squares.mean() / 2
    rows = np.square(by_row - by_row.mean()).sum() / 199 / 200
    variance = rows + sum(parts)
    freedom = min(5, variance**2 / (rows**2 / 199 + parts[0] ** 2 / 3 + parts[1] ** 2 / 2))
    middle = math.log(new_squares.mean() / old_squares.mean()) / 2
    half = t_quantile(0.95, freedom) * math.sqrt(variance)
    its = change(old, new, "rmse")
    assert (its.low, its.high) == pytest.approx((math.exp(middle - half) - 1, math.exp(middle + half) - 1))
    assert its.relative == pytest.approx(math.exp(middle) - 1)
    wider = change(old, new, "rmse", comparisons=4)
    assert math.log((1 + wider.high) / (1 + wider.low)) == pytest.approx(
        2 * t_quantile(1 - 0.05 / 4, freedom) * math.sqrt(variance)
    )


@pytest.mark.parametrize("level", [0.5, 0.95, 0.995])
def test_the_quantile_is_that_of_students_t(level: float) -> None:
    assert t_quantile(level, 1) == pytest.approx(math.tan(math.pi * level / 2))  # the closed forms
    assert t_quantile(level, 2) == pytest.approx(level * math.sqrt(2 / (1 - level**2)))
    assert t_quantile(level, 4.19) == t_quantile(level, 4.1) > t_quantile(level, 4.2)
    normal = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)).item()
    assert t_quantile(level, 1000) == pytest.approx(normal, rel=3e-3)


def test_the_other_way_round_the_verdict_is_the_opposite() -> None:
    good, bad = drawn(1, 10, 0.5), drawn(2, 10, 1.0)
    there, back = change(bad, good, "mae"), change(good, bad, "mae")
    assert (there.verdict, back.verdict) == (BETTER, WORSE)
    assert (1 + there.low) * (1 + back.high) == pytest.approx(1)
    assert change(good, drawn(3, 10, 0.5), "mae").verdict == CHANCE


@pytest.mark.parametrize("networks", [1, 5])
def test_equal_predictions_are_the_same_and_an_error_of_zero_says_nothing(networks: int) -> None:
    assert change(drawn(1, networks, 1.0), drawn(1, networks, 1.0), "rmse").verdict == SAME
    perfect = drawn(1, networks, 1.0)._replace(overall={"rmse": 0.0})
    assert change(drawn(2, networks, 1.0), perfect, "rmse").verdict == UNKNOWN
    assert change(drawn(1, networks, 1.0, rows=1), drawn(2, networks, 1.0, rows=1), "rmse").verdict == UNKNOWN


def test_with_one_network_there_is_no_verdict_and_the_words_say_why() -> None:
    comparison = compare([side("HEAD", drawn(1, 1, 1.0)), side("workspace", drawn(2, 20, 0.1))])
    assert {row[-1] for row in comparison.metrics[1:]} == {"", UNKNOWN}
    assert comparison.metrics[2][-2].endswith(", rows alone")
    (note,) = comparison.notes
    assert note.startswith("HEAD has one network: how much of a change is due to the seed cannot be known")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"targets": ["price"]}, "b predicts other targets than a"),
        ({"table": "other"}, "b has test rows of another table than a"),
        ({"rows": np.arange(1, 201)}, "b has other test rows than a"),
        ({"true": np.zeros((200, 1))}, "b has other test rows than a"),
    ],
)
def test_other_test_rows_leave_the_verdict_open_and_the_words_say_so(other: dict[str, Any], words: str) -> None:
    comparison = compare([side("a", drawn(1, 20, 1.0)), side("b", drawn(2, 20, 0.1)._replace(**other))])
    assert comparison.metrics[2][3:] == ["–", "–", UNKNOWN]
    (note,) = comparison.notes
    assert note.startswith(f"{words}: ")
    assert not comparison.comparable


def test_several_are_compared_with_the_first_and_their_verdicts_agree_with_their_intervals() -> None:
    sides = [side(str(seed), drawn(seed, 20, noise)) for seed, noise in enumerate((1.0, 0.96, 1.04, 0.5))]
    comparison = compare(sides)
    for changes in comparison.changes.values():
        for its in changes:
            assert (its.verdict == CHANCE) == (its.low <= 0 <= its.high)
    assert comparison.metrics[4][-1] == BETTER
    assert comparison.notes == ["The intervals of the 3 changes of a metric hold together, with 95% (Bonferroni)."]
    alone = compare(sides[:2]).changes["rmse"][0]
    assert alone.high < comparison.changes["rmse"][0].high


def test_the_tables_show_the_params_that_differ_and_each_value_with_its_standard_error() -> None:
    old, new = drawn(1, 20, 1.0), drawn(2, 20, 0.5)
    comparison = compare([side("HEAD", old), side("a|b", new, **{"train.learning_rate": 0.1})])
    text = as_text(comparison).splitlines()
    assert text[:3] == [
        "revision  networks  params that differ",
        "HEAD      20        train.learning_rate=–",
        "a|b       20        train.learning_rate=0.1",
    ]
    error = f"{old.overall['rmse']:.4g} ± {standard_error(old, 'rmse'):.2g}"
    assert text[5].split("  ")[0] == "test_rmse" and error in text[5]
    assert text[6].startswith("           a|b") and text[6].endswith(BETTER)
    lines = as_markdown(comparison).splitlines()
    assert [line.count(" | ") for line in lines[:4]] == [2] * 4
    assert "| a\\|b | 20 |" in lines[3]


def test_the_picture_has_the_interval_of_each_change_around_the_value_of_the_first() -> None:
    comparison = compare([side(name, drawn(seed, 20, 1.0 / (seed + 1))) for seed, name in enumerate("abc")])
    axes = Figure().add_subplot()
    picture.draw_metric(axes, comparison, "rmse")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a\nnone", "b\nnone", "c\nnone"]
    first, its = comparison.values["rmse"][0], comparison.changes["rmse"][1]
    bars = axes.containers[1]
    assert isinstance(bars, ErrorbarContainer)
    (segment,) = bars.lines[2][0].get_segments()
    assert segment[:, 1].tolist() == pytest.approx([first * (1 + its.low), first * (1 + its.high)])
    assert len(picture.draw(comparison).getcolors(1 << 20) or []) > 2


def commit_errors(copy: Copy, errors: Residuals, **params: Any) -> None:
    residuals.write(str(copy.path / "data/errors.csv"), errors)
    copy.set(**params)
    copy.commit("errors")


def test_revisions_are_compared_as_git_has_them_and_drawn(copy: Copy) -> None:
    commit_errors(copy, drawn(1, 20, 1.0))
    copy.run("git", "branch", "before")
    commit_errors(copy, drawn(2, 20, 0.5), train__learning_rate=0.1)
    printed = copy.run("python", "-m", "tools.compare", "before", "HEAD", "--picture", "compare.png")
    assert "before    20        train.learning_rate=0.2" in printed
    assert printed.count(BETTER) == 2
    assert copy.read("compare.png").startswith(b"\x89PNG")
    assert copy.run("python", "-m", "tools.compare", "before", "HEAD", "--markdown").startswith(
        "| revision | networks |"
    )


def test_what_cannot_be_compared_is_one_line(done: Copy) -> None:
    def told(*revs: str) -> str:
        return done.run("python", "-m", "tools.compare", *revs, status=2)

    assert told("nowhere").startswith("REV: must be a commit, branch, tag or experiment, got 'nowhere': ")
    done.run("git", "rm", "-q", "--ignore-unmatch", "data/errors.csv")
    done.commit("without errors")
    assert told("HEAD", "HEAD") == "HEAD: has no data/errors.csv: check it out, then run `dvc repro` and commit\n"
    (done.path / "data/errors.csv").write_text("part,number\n")
    done.commit("damaged errors")
    assert told("HEAD", "HEAD") == "HEAD: data/errors.csv: not as this project writes it: 'table'\n"
    commit_errors(done, drawn(1, 2, 1.0), train__seed=12)
    assert told() == "workspace: evaluate, train would run again: run `dvc repro` first\n"
