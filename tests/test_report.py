import os
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, MARKS, Page, visit
from tests.conftest import PROJECT, Copy

COUNTS = f"[...document.querySelectorAll('.chart')].map(chart => chart.querySelectorAll('{MARKS}').length)"
SHOWN = "[...document.querySelectorAll('[data-epoch]')].filter(each => !each.hidden).map(each => each.dataset.epoch)"
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
        return revisions, await page.value(COUNTS), await page.value("document.body.innerText"), page.failures

    revisions, marks, text, failures = visit(look)
    assert failures == []
    assert revisions == ["HEAD", "workspace"]
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
