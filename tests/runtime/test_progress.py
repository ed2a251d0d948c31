"""How far long work has got: in a terminal, where there is none, and in real runs."""

import io
import re
import time
from contextlib import redirect_stderr

import pytest

from stages.runtime import progress
from tests.conftest import PROJECT, Copy


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def lines_of(seconds: float, total: int | None = 100, hidden: bool = False) -> list[str]:
    """Return what is shown, without a terminal, of 50 epochs that take so many seconds, after another 50."""
    now = 0.0
    stderr = io.StringIO()
    with (
        redirect_stderr(stderr),
        progress.showing(total, "epoch", done=50, hidden=hidden, seconds=lambda: now) as advance,
    ):
        for _ in range(50):
            now += seconds / 50
            advance(1, "loss=1")
    return stderr.getvalue().splitlines()


def bars(hidden: bool = False) -> list[str]:
    """Return what is shown in a terminal, one after the other, of 50 epochs after another 50."""
    stderr = Terminal()
    with redirect_stderr(stderr), progress.showing(100, "epoch", done=50, hidden=hidden) as advance:
        advance(49)
        time.sleep(0.2)  # tqdm shows no more than ten bars a second
        advance(1, "loss=1")
    return stderr.getvalue().split("\r")


@pytest.fixture(autouse=True)
def lines_after_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_AFTER", 10.0)


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(10) == []
    monkeypatch.setattr(progress, "BAR_AFTER", 1000.0)
    assert bars() == [""]


def test_other_ranks_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(1000, hidden=True) == []
    monkeypatch.setattr(progress, "BAR_AFTER", 0.0)
    assert bars(hidden=True) == [""]


def test_the_time_between_lines_doubles_up_to_the_longest() -> None:
    first, *_ = lines = lines_of(500)
    assert first == "epoch 52 of 100, loss=1, 8 min 0 s left"  # 20 s an epoch, whatever was done before
    assert [line.split()[1] for line in lines] == ["52", "55", "60", "69", "86"]
    epochs = [int(line.split()[1]) for line in lines_of(5000)]
    assert epochs == [51, 52, 53, 54, 56, *range(60, 101, 4)]


def test_work_of_unknown_length_shows_how_much_is_done() -> None:
    assert lines_of(50, total=None) == ["61 epochs, loss=1", "82 epochs, loss=1"]


def test_the_bar_of_a_terminal_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BAR_AFTER", 0.0)
    *_, bar, erased, last = bars()
    assert re.fullmatch(r" *100%\|.*\| 100/100 \[.*, loss=1\] *", bar)
    assert (erased.strip(), last) == ("", "")


def test_each_stage_shows_how_far_it_is_where_there_is_no_terminal(copy: Copy) -> None:
    def lines(stage: str) -> list[str]:
        return copy.stage(stage).splitlines()[:-1]

    copy.set_constant("stages/runtime/progress.py", "LINE_AFTER", 0.0)
    assert lines("generate")[-1] == "point 1100 of 1100"
    copy.set(train__epochs=1000, train__batch_size=30, train__snapshot_every=500)
    first, *_, last = lines("train")
    assert re.fullmatch(r"epoch \d+ of 1000, (step [2-4], )?loss=0\.\d+, .* s left", first)
    assert re.fullmatch(r"epoch 1000 of 1000, loss=0\.\d+", last)
    assert [line.partition(",")[0] for line in lines("plot")] == [f"picture {number} of 3" for number in (1, 2, 3)]
    predictions = lines("evaluate")
    assert predictions[-1] == "prediction 2100 of 2100"
    assert len(predictions) == 3

    example = (PROJECT / "examples/auto-mpg/params.yaml").read_text(encoding="utf-8")
    (copy.path / "params.yaml").write_text(example, encoding="utf-8")
    counts = [line.partition(",")[0] for line in lines("generate") if not line.startswith("generate: ")]
    assert counts == ["398 rows", "point 358 of 398", "point 398 of 398"]
