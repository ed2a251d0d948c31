"""Draw the data, the learning process and the loss curve.

data/history.npz, data/loss.csv → data/plots/: data.png, learning/0.png, 10.png, … (the names are epochs), learning.gif
and loss.png. Imports no torch.
"""

from typing import Annotated

from pydantic import Field

from stages import history
from stages.errors import UserError
from stages.params import Exact, Section, StageParams
from stages.plot.pictures import draw_data, draw_learning, draw_losses, write_animation, write_picture


class Plot(Section):
    """The section `plot` of params.yaml."""

    dpi: Annotated[int, Field(ge=30, le=600)]
    frame_seconds: Annotated[float, Field(ge=0.02, le=600), Exact]


class Params(StageParams):
    """What this stage reads of params.yaml."""

    plot: Plot


def run(params: Params) -> None:
    """Read the history, draw the pictures, write them."""
    dpi = params.plot.dpi
    snapshots = history.read_snapshots("data/history.npz")
    losses = history.read_losses("data/loss.csv")
    if len(losses) != snapshots.epochs[-1]:
        raise UserError(f"data/loss.csv: must have {snapshots.epochs[-1]} epochs, got {len(losses)}: run `dvc repro`")

    write_picture("data/plots/data.png", draw_data(snapshots.x, snapshots.y, dpi))
    write_picture("data/plots/loss.png", draw_losses(losses, dpi))
    frames = list(draw_learning(snapshots, dpi))
    for epoch, frame in zip(snapshots.epochs, frames, strict=True):
        write_picture(f"data/plots/learning/{epoch}.png", frame)
    write_animation("data/plots/learning.gif", frames, params.plot.frame_seconds)
