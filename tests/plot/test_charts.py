import json
import re
from typing import Any

import numpy as np
import pytest
import torch
import vl_convert

from stages import history, residuals
from stages.columns import Columns, Number
from stages.evaluate.predictions import write_predictions
from stages.residuals import Residuals
from tests.conftest import Copy


def chart(copy: Copy, path: str) -> dict[str, Any]:
    """Return a chart of a copy as DVC shows it."""
    (shown,) = json.loads(copy.run("dvc", "plots", "show", path, "--json"))["data"][path]
    return shown["content"]


@pytest.mark.parametrize("names", [("loss",), ("loss", "validation_loss"), history.LOSSES])
def test_the_chart_of_the_losses_is_given_the_validation_loss_where_there_is_one(
    copy: Copy, names: tuple[str, ...]
) -> None:
    history.write_losses(str(copy.path / "data/loss.csv"), {name: [0.5, 0.25] for name in names})
    content = chart(copy, "data/loss.csv")
    rows = content["data"]["values"]
    assert [row.keys() for row in rows] == [{"epoch", "rev", *names}] * 2
    training, validation = content["layer"]
    assert training["encoding"]["y"]["field"] == "loss"
    assert "datum.validation_loss > 0" in json.dumps(validation)


@pytest.mark.parametrize(
    ("features", "targets", "titles"),
    [
        (["x"], ["y"], ["x"]),
        (["x"], ["y_0", "y_1"], ["x (y_0)", "x (y_1)"]),
        (["area"], ["price"], ["true price"]),
        (["x", "rev", "predicted"], ["price of it", "rent"], ["true price of it", "true rent"]),
    ],
)
def test_the_chart_of_the_predictions_says_what_is_on_its_axes(
    copy: Copy, features: list[str], targets: list[str], titles: list[str]
) -> None:
    columns = Columns(
        features=[Number(name=name) for name in features], targets=[Number(name=name) for name in targets]
    )
    x, y = torch.rand(7, len(features)), torch.rand(7, len(targets))
    write_predictions(str(copy.path / "data/predictions.csv"), columns, x, y, y / 2)
    picture = vl_convert.vegalite_to_svg(chart(copy, "data/predictions.csv"))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    assert [text for text in texts if re.match("x|true", text)] == titles
    assert "prediction" in texts
    assert picture.count('aria-roledescription="circle"') == 2 * 7 * len(targets)  # the truth, and the prediction


def test_the_chart_of_the_predictions_shows_intervals_where_there_are_some(copy: Copy) -> None:
    columns = Columns(features=[Number(name="area")], targets=[Number(name="price")])
    x, y = torch.rand(7, 1), torch.rand(7, 1)
    write_predictions(str(copy.path / "data/predictions.csv"), columns, x, y, y / 2, torch.ones(1))
    picture = vl_convert.vegalite_to_svg(chart(copy, "data/predictions.csv"))
    assert picture.count('aria-roledescription="circle"') == 2 * 7
    assert picture.count('aria-roledescription="rule mark"') == 7


def test_the_chart_of_the_errors_shows_each_row_and_nothing_else_of_the_file(copy: Copy) -> None:
    errors = np.arange(8.0).reshape(4, 2)
    without = {name: np.array([0.5, 0.25]) for name in residuals.OF_AMOUNTS}
    overall = dict.fromkeys(residuals.OF_AMOUNTS, 0.5)
    shown = Residuals(9, "0a", ["price", "rent"], np.arange(4), errors + 1, errors, overall, without)
    residuals.write(str(copy.path / "data/errors.csv"), shown)
    picture = vl_convert.vegalite_to_svg(chart(copy, "data/errors.csv"))
    assert picture.count('aria-roledescription="circle"') == 8
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    assert [text for text in texts if text.startswith("true")] == ["true price", "true rent"]
    assert "prediction - truth" in texts
