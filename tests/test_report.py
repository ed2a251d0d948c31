import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, MARKS, Page, visit
from tests.conftest import PROJECT, Copy
from tools.report import contents

COUNTS = f"[...document.querySelectorAll('.chart')].map(chart => chart.querySelectorAll('{MARKS}').length)"
SHOWN = (
    "[...document.querySelectorAll('[data-epoch]')].filter(image => !image.hidden).map(image => image.dataset.epoch)"
)
CAPTIONS = "[...document.querySelectorAll('.epoch')].map(caption => caption.textContent)"
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
    done.rerun("generate", "train", "plot", "evaluate")
    done.run("python", "-m", "tools.report", "HEAD", "-o", "compared.html")

    async def look(page: Page) -> Any:
        await page.open(done.path / "compared.html", 1280)
        revisions = await page.value("[...document.querySelectorAll('.revisions .revision')].map(e => e.textContent)")
        marks, text = await page.value(COUNTS), await page.value("document.body.innerText")
        epochs = [(await page.value(SHOWN), await page.value(CAPTIONS))]
        await page.value(SLIDE.format(0))
        epochs.append((await page.value(SHOWN), await page.value(CAPTIONS)))
        await page.open(done.path / "compared.html", 390)
        assert await page.value(FITS)
        return revisions, marks, text, epochs, page.failures

    revisions, marks, text, epochs, failures = visit(look)
    assert failures == []
    assert revisions == ["HEAD", "workspace"]
    assert [shown for shown, _ in epochs] == [["200", "60"], ["0", "0"]]
    (lesson, table), first = epochs[0][1], epochs[1][1]
    assert (lesson, first) == ("epoch 200", ["epoch 0", "epoch 0"])
    assert re.fullmatch(r"epoch 60, with the weights that were kept, of epoch \d+", table)
    assert all(count > 0 for count in marks)
    assert "change" not in text.replace("What changed", "")
    shown = ("Params that differ", "source", "curve", "table", "mpg", "least squares", "not subtracted")
    for words in (*shown, "What was decided about them", "left out: 280 texts in 358 training rows"):
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


def test_a_name_that_could_begin_a_commit_is_an_experiment_or_one_line(done: Copy) -> None:
    done.set(plot__dpi=50)
    done.rerun("plot")
    for name in ("1", "a1"):  # an odd and an even number of digits
        told = done.run("python", "-m", "tools.report", name, status=2)
        assert told == (
            f"REV: must be a commit, branch, tag or experiment, got {name!r}: `git log` lists commits, `dvc exp list` "
            "experiments\n"
        )
        done.run("dvc", "exp", "save", "--name", name)
        done.run("python", "-m", "tools.report", name)
        page = done.read("report.html").decode()
        assert f"<code>{name}</code>" in page
        assert "No param differs." in page  # the experiment is what the workspace has
        assert "No metric differs." in page


@pytest.fixture(scope="module")
def compared(trained: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy whose report.html shows a shorter training, tested at three points, beside the lesson, for reading."""
    copy = trained.twin(tmp_path_factory.mktemp("compared"))
    copy.set(train__epochs=20, generate__test_points=3)
    copy.rerun("generate", "train", "plot", "evaluate")
    copy.run("python", "-m", "tools.report", "HEAD")
    return copy


def test_what_differs_is_subtracted_only_between_metrics_of_the_same_targets(compared: Copy) -> None:
    page = compared.read("report.html").decode()
    assert '<th scope="col">change</th>' in page
    assert "differs.</p>" not in page and "not subtracted" not in page
    assert "noise floor" in page


def test_warnings_stand_before_the_metrics_and_not_among_them(compared: Copy) -> None:
    page = compared.read("report.html").decode()
    line = '<p class="note"><span class="revision" data-order="1">workspace</span>: only 3 test rows: '
    assert page.count(line) == page.count("only 3 test rows") == 1
    assert page.index(line) < page.index("test_<wbr>rmse")


def test_stages_stand_after_those_that_they_need(compared: Copy) -> None:
    page = compared.read("report.html").decode()
    stages = re.findall(r"<li><strong>(\w+)</strong>(?: <span class=\"desc\">(.*?)</span>)?", page)
    assert stages[:2] == [("generate", ""), ("train", "after generate")]
    assert set(stages[2:]) == {("plot", "after train"), ("evaluate", "after generate and train")}


def test_the_network_stands_beside_the_baselines_for_all_targets_and_each_of_several() -> None:
    scores = {"mse": 1.0, "rmse": 1.0, "mae": 0.8, "r2": None}
    network = {f"test_{name}": value for name, value in scores.items()}
    baselines = {"mean": scores, "least_squares": scores}
    assert contents.scores_of("HEAD", network) == []  # the lesson
    (overall,) = contents.scores_of("HEAD", {**network, "baselines": baselines})
    assert list(overall.models) == ["network", "mean", "least_squares"]
    assert overall.models["network"] == {"rmse": 1.0, "mae": 0.8, "r2": None}
    of_price = {"network": scores, **baselines}
    several = contents.scores_of("HEAD", {**network, "baselines": baselines, "targets": {"price": of_price}})
    assert [table.target for table in several] == ["", "price"]
    earlier = {**network, "baselines": baselines, "targets": {"price": scores}}  # as earlier versions wrote it
    assert [table.target for table in contents.scores_of("HEAD", earlier)] == [""]


@pytest.mark.parametrize("known", ["accuracy log_loss brier", "accuracy log_loss brier auc"])
def test_the_metrics_of_classes_are_shown_as_far_as_they_exist(known: str) -> None:
    scores = dict.fromkeys(known.split(), 0.5)
    network = {"test_accuracy_se_of_rows": 0.1, **{f"test_{name}": 0.9 for name in scores}}
    baselines = {"most_frequent": scores, "logistic_regression": scores}
    (table,) = contents.scores_of("HEAD", {**network, "baselines": baselines})
    assert table.names == known.split()
    assert table.value("network", "log_loss") == 0.9
    assert table.value("most_frequent", "log_loss") == 0.5
    assert table.value("most_frequent", "rmse") is contents.MISSING


@pytest.mark.parametrize(
    ("network", "loss", "lines"), [({}, "MSELoss", 1), ({"standardize": True}, "MSELoss", 0), ({}, "L1Loss", 0)]
)
def test_the_noise_floor_is_drawn_where_the_loss_has_its_units(network: dict[str, Any], loss: str, lines: int) -> None:
    spec: dict[str, Any] = {"data": {"values": [{"epoch": "0", "loss": "1"}]}, "encoding": {}, "layer": [{}]}
    contents.add_noise_floors(
        spec, {"workspace": {"noise_floor": 0.01}}, {"workspace": {"network": network, "train": {"loss": loss}}}
    )
    assert str(spec).count("'noise_floor': 0.01") == lines


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
