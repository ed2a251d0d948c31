"""How far long work has got: in a terminal, where there is none, and in real runs."""

import io
import re
import time
from contextlib import redirect_stderr

import pytest

from stages.runtime import progress
from tests.conftest import PROJECT, Copy, before_summary


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(stderr: io.StringIO, seconds: float, total: int | None = 100, hidden: bool = False) -> str:
    """Return what is shown of work that takes so long, half of which was done before."""
    with redirect_stderr(stderr), progress.showing(total, "epoch", done=50, hidden=hidden) as advance:
        start, done = time.monotonic(), 0
        while done < 50:
            now_done = min(50, int(50 * (time.monotonic() - start) / seconds))
            advance(now_done - done, "loss=1")
            done = now_done
            time.sleep(0.001)
    return stderr.getvalue()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BAR_AFTER", 0.1)
    monkeypatch.setattr(progress, "LINE_AFTER", 0.1)


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_short_work_shows_nothing(stderr: type[io.StringIO]) -> None:
    assert shown(stderr(), 1e-9) == ""


@pytest.mark.parametrize("stderr", [io.StringIO, Terminal])
def test_other_ranks_show_nothing(stderr: type[io.StringIO]) -> None:
    assert shown(stderr(), 0.3, hidden=True) == ""


def test_the_time_between_lines_doubles_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 0.1, 0.3 and 0.7 of 1 s; if it is at most 0.25 s, at 0.1, 0.3, 0.55 and 0.8 s."""
    lines = shown(io.StringIO(), 1.0).splitlines()
    epochs = [int(found[1]) for line in lines if (found := re.match(r"epoch (\d+) of 100, loss=1, ", line))]
    assert len(epochs) == len(lines) == 3
    gaps = [epochs[0] - 50, epochs[1] - epochs[0], epochs[2] - epochs[1]]
    assert all(gap >= least for gap, least in zip(gaps, (4, 9, 19), strict=True))
    left = float(lines[0].split()[-3])
    assert left == pytest.approx(0.9, rel=0.7)  # as fast as since the start, whatever was done before
    monkeypatch.setattr(progress, "LONGEST_GAP", 0.25)
    assert len(shown(io.StringIO(), 1.0).splitlines()) == 4


def test_work_of_unknown_length_shows_how_much_is_done() -> None:
    line, *_ = shown(io.StringIO(), 0.2, total=None).splitlines()
    assert re.fullmatch(r"\d+ epochs, loss=1", line)


def test_the_bar_of_a_terminal_is_gone_at_the_end() -> None:
    *_, bar, erased, last = shown(Terminal(), 0.5).split("\r")
    assert re.fullmatch(r" *\d+%\|.*\| \d+/100 \[.*, loss=1\] *", bar)
    assert (erased.strip(), last) == ("", "")


def test_each_stage_shows_how_far_it_is_where_there_is_no_terminal(copy: Copy) -> None:
    path = copy.path / "stages/runtime/progress.py"
    text, changes = re.subn(r"(?m)^LINE_AFTER = [\d.]+", "LINE_AFTER = 0.0", path.read_text(encoding="utf-8"))
    assert changes == 1
    path.write_text(text, encoding="utf-8")
    assert before_summary(copy.stage("generate")).splitlines()[-1] == "point 1100 of 1100"
    copy.set(train__epochs=1000, train__batch_size=30, train__snapshot_every=500)
    told = before_summary(copy.stage("train")).splitlines()
    assert re.fullmatch(r"epoch \d+ of 1000, (step [2-4], )?loss=0\.\d+, .* s left", told[0])
    assert re.fullmatch(r"epoch 1000 of 1000, loss=0\.\d+", told[-1])
    told = before_summary(copy.stage("plot")).splitlines()
    assert [line.partition(",")[0] for line in told] == [f"picture {number} of 3" for number in (1, 2, 3)]
    told = before_summary(copy.stage("evaluate")).splitlines()
    assert told[-1] == "prediction 3100 of 3100"
    assert len(told) == 4

    example = (PROJECT / "examples/auto-mpg/params.yaml").read_text(encoding="utf-8")
    (copy.path / "params.yaml").write_text(example, encoding="utf-8")
    told = before_summary(copy.stage("generate")).splitlines()
    assert [line.partition(",")[0] for line in told] == ["392 rows", "point 353 of 392", "point 392 of 392"]
