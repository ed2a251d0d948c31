import os
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, MARKS, Page, visit
from tests.conftest import PROJECT, Copy
from tools.report import contents, dag

COUNTS = f"[...document.querySelectorAll('.chart')].map(chart => chart.querySelectorAll('{MARKS}').length)"
SHOWN = "[...document.querySelectorAll('[data-epoch]')].filter(each => !each.hidden).map(each => each.dataset.epoch)"
EARLIER = "[...document.querySelectorAll('.earlier')].map(each => each.textContent)"
SLIDE = (
    "((slider) => {{ slider.value = {}; slider.dispatchEvent(new Event('input')) }})(document.querySelector('input'))"
)
LOADED = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
FITS = "document.documentElement.scrollWidth <= innerWidth"
needs_chromium = pytest.mark.skipif(not CHROMIUM and not os.environ.get("CI"), reason="needs chromium")


@needs_chromium
def test_the_report_opens_without_network(done: Copy) -> None:
    assert done.run("python", "-m", "tools.report").startswith("report.html: ")

    async def look(page: Page) -> Any:
        seen = []
        for width, dark in [(1280, False), (390, True)]:
            await page.open(done.path / "report.html", width, dark=dark)
            before = await page.value(SHOWN)
            await page.value(SLIDE.format(3))
            after, label = await page.value(SHOWN), await page.value("document.querySelector('output').value")
            seen.append((before, after, label, await page.value(LOADED), await page.value(FITS)))
            assert all(marks > 0 for marks in await page.value(COUNTS))
        text = await page.value("document.body.innerText")
        return seen, text, page.failures

    seen, text, failures = visit(look)
    assert failures == []
    assert seen == [(["200"], ["30"], "30 of 200", True, True)] * 2
    for stage in ("generate", "train", "plot", "evaluate"):
        assert stage in text
    assert "test_rmse" in text and "0.064442" in text and "learning_rate" in text


@needs_chromium
def test_the_report_compares_with_another_revision_and_shows_a_table(done: Copy) -> None:
    example = (PROJECT / "examples/auto-mpg/params.yaml").read_text(encoding="utf-8")
    done.commit("lesson")
    (done.path / "params.yaml").write_text(example.replace("epochs: 2000 ", "epochs: 60 "), encoding="utf-8")
    done.repro()
    done.run("python", "-m", "tools.report", "HEAD", "-o", "compared.html")

    async def look(page: Page) -> Any:
        await page.open(done.path / "compared.html", 1280)
        revisions = await page.value("[...document.querySelectorAll('.revisions .revision')].map(e => e.textContent)")
        marks, text = await page.value(COUNTS), await page.value("document.body.innerText")
        epochs = [(await page.value(SHOWN), await page.value(EARLIER))]
        await page.value(SLIDE.format(0))
        epochs.append((await page.value(SHOWN), await page.value(EARLIER)))
        await page.open(done.path / "compared.html", 390)
        assert await page.value(FITS)
        return revisions, marks, text, epochs, page.failures

    revisions, marks, text, epochs, failures = visit(look)
    assert failures == []
    assert revisions == ["HEAD", "workspace"]
    assert epochs == [(["200", "60"], ["", "at epoch 60"]), (["0", "0"], ["", ""])]
    assert all(count > 0 for count in marks)
    for words in ("Params that differ", "source", "curve", "table", "targets", "mpg", "least_squares"):
        assert words in text, words


def test_what_cannot_be_reported_is_one_line(copy: Copy) -> None:
    told = copy.run("python", "-m", "tools.report", status=2)
    assert told.splitlines() == [told.strip()]
    assert told.strip().endswith("missing: run `dvc repro`, or `dvc pull` if a remote has the outputs")
    told = copy.run("python", "-m", "tools.report", "nowhere", status=2)
    assert told == (
        "REV: must be a commit, branch, tag or experiment, got 'nowhere': `git log` lists commits, `dvc exp list` "
        "experiments\n"
    )
    assert not Path(copy.path, "report.html").exists()


def test_outputs_that_are_missing_in_the_cache_are_told_in_one_line(done: Copy) -> None:
    cure = "run `dvc fetch --all-commits` if a remote has it, or check out that revision and run `dvc repro`\n"
    for folder in (done.path / ".dvc/cache").rglob("*.dir"):  # the lists of what is in data/plots
        folder.unlink()
    told = done.run("python", "-m", "tools.report", "HEAD", status=2)
    assert told == f"the pictures: missing in the cache for HEAD: {cure}"
    shutil.rmtree(done.path / ".dvc/cache")
    told = done.run("python", "-m", "tools.report", "HEAD", status=2)
    assert told == f"data/loss.csv: missing in the cache for HEAD: {cure}"


def test_of_many_pictures_a_hundred_are_shown_the_first_and_the_last_among_them() -> None:
    images = [contents.Picture(f"data/plots/learning/{epoch}.png", {}) for epoch in range(0, 5000, 3)]
    others = [contents.Picture(f"data/plots/{name}", {}) for name in ("learning.gif", "loss.png")]
    (found,), rest = contents.sequences([*others, *images])
    assert rest == others[1:]
    assert found.animation == others[0]
    assert [picture.name for picture in found.pictures] == [str(epoch) for epoch in found.epochs]
    assert len(found.epochs) == len(set(found.epochs)) == 100
    assert (found.epochs[0], found.epochs[-1]) == (0, 4998)


@pytest.mark.parametrize(
    ("names", "edges"),
    [
        ("a", []),
        ("ab", []),
        ("abcd", ["ab", "bc", "bd", "ad"]),  # the DAG of the lesson
        ("abcdef", ["ab", "bc", "cd", "ad", "ef"]),
    ],
)
def test_the_boxes_of_the_dag_are_apart_and_inside_the_drawing(names: str, edges: list[str]) -> None:
    drawing = dag.lay_out(list(names), [(edge[0], edge[1]) for edge in edges])
    assert sorted(box.name for box in drawing.boxes) == sorted(names)
    assert len(drawing.lines) == len(edges)
    for box, other in combinations(drawing.boxes, 2):
        (x, y), (other_x, other_y) = box.xy, other.xy
        assert abs(x - other_x) >= (box.w + other.w) / 2 or abs(y - other_y) >= (box.h + other.h) / 2
    for (x, y), w, h in [(box.xy, box.w, box.h) for box in drawing.boxes]:
        assert w / 2 <= x <= drawing.width - w / 2
        assert h / 2 <= y <= drawing.height - h / 2
