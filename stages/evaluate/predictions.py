"""Predict in chunks, compare the predictions of two networks, write a table of them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stages import files, network
from stages.errors import UserError


def predict(net: nn.Module, x: Tensor, rows: int) -> Iterator[Tensor]:
    """Yield the predictions for x, (n, n_feature), at most `rows` rows at a time: (rows, n_output).

    Raises UserError if they are not finite.
    """
    for chunk in x.split(rows):
        prediction = network.predict(net, chunk)
        if not prediction.isfinite().all():
            raise UserError("data/net.pkl: must predict finite values, got nan or inf: lower train.learning_rate")
        yield prediction


def largest_difference(net: nn.Module, twin: nn.Module, x: Tensor, rows: int) -> float:
    """Return the largest absolute difference between the predictions of both networks for x, (n, n_feature).

    Raises UserError if they differ at all, even if only in the sign of a zero.
    """
    difference = 0.0
    for prediction, other in zip(predict(net, x, rows), predict(twin, x, rows), strict=True):
        if not torch.equal(prediction.view(torch.int32), other.view(torch.int32)):  # as bits: -0.0 == 0.0
            raise UserError("data/net.pkl and data/net_params.pkl predict differently: run `dvc repro --force train`")
        difference = max(difference, (prediction - other).abs().max().item())
    return difference


def write_predictions(path: str, x: Tensor, y: Tensor, prediction: Tensor) -> None:
    """Write a table with a row for each output of each point: the features, the truth, the prediction, which output.

    x is (n, n_feature), y and prediction are (n, n_output). The columns are x, x_1, …, y, net and output, so that a
    chart of net over x finds its columns whatever the widths.
    """
    n_feature, n_output = x.shape[1], y.shape[1]
    outputs = ["y"] if n_output == 1 else [f"y_{index}" for index in range(n_output)]
    header = ["x", *(f"x_{index}" for index in range(1, n_feature)), "y", "net", "output"]
    table = torch.column_stack([x.repeat_interleave(n_output, dim=0), y.flatten(), prediction.flatten()])
    with files.writing(path) as file:
        file.write((",".join(header) + "\n").encode())
        for index, row in enumerate(table.tolist()):
            file.write(",".join([*(f"{value:.9g}" for value in row), outputs[index % n_output] + "\n"]).encode())
