import json

import pytest

from stages import history
from tests.conftest import Copy


@pytest.mark.parametrize("names", [("loss",), ("loss", "validation_loss"), history.LOSSES])
def test_the_chart_of_the_losses_is_given_the_validation_loss_where_there_is_one(
    copy: Copy, names: tuple[str, ...]
) -> None:
    history.write_losses(str(copy.path / "data/loss.csv"), {name: [0.5, 0.25] for name in names})
    (chart,) = json.loads(copy.run("dvc", "plots", "show", "data/loss.csv", "--json"))["data"]["data/loss.csv"]
    rows = chart["content"]["data"]["values"]
    assert [row.keys() for row in rows] == [{"epoch", "rev", *names}] * 2
    training, validation = chart["content"]["layer"]
    assert training["encoding"]["y"]["field"] == "loss"
    assert "datum.validation_loss > 0" in json.dumps(validation)
