"""Draw the data, the learning process and the loss curve.

data/history.npz, data/loss.csv → data/plots/: data.png, learning/0.png, 10.png, … (the names are epochs), learning.gif
and loss.png. Imports no torch.
"""

from itertools import chain
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from stages import history
from stages.columns import unnamed
from stages.plot.class_data import draw_class_data
from stages.plot.confusion import draw_confusions
from stages.plot.data import draw_data
from stages.plot.fonts import fonts_for
from stages.plot.learning import draw_learning
from stages.plot.losses import draw_losses
from stages.plot.pictures import write_animation, write_picture, write_pictures
from stages.runtime.errors import UserError, counted, printable
from stages.runtime.params import Exact, Section, StageParams
from stages.runtime.progress import showing
from stages.runtime.spread import evenly_spread

GIF_HUNDREDTHS = 65535  # the longest that a GIF can show a frame, in hundredths of a second


class Plot(Section):
    """The section `plot` of params.yaml."""

    dpi: Annotated[int, Field(ge=30, le=600)]
    max_frames: Annotated[int, Field(ge=2, le=1000)]
    frame_seconds: Annotated[float, Field(ge=0.02, le=300), Exact]

    @field_validator("frame_seconds")
    @classmethod
    def _fits_a_gif(cls, seconds: float, info: ValidationInfo) -> float:
        """Refuse times that a GIF cannot hold if all frames are equal, since equal frames are merged into one."""
        frames = info.data.get("max_frames", 1)
        limit = GIF_HUNDREDTHS // frames / 100
        if seconds > limit:
            raise ValueError(f"must be at most {limit} when plot.max_frames is {frames}")
        return seconds


class Params(StageParams):
    """What this stage reads from params.yaml."""

    plot: Plot


def boxes(characters: str) -> str:
    """Say which characters of the names are drawn as boxes, since no font has them; nothing if there are none."""
    if not characters:
        return ""
    shown = printable(characters[:10]) + ("…" if len(characters) > 10 else "")
    cure = "install one that has them, e.g. the package fonts-noto-cjk, then run `dvc repro --single-item --force plot`"
    return f", with □ for {shown}, which no font on this machine has: {cure}"


def remove_others(path: Path, kept: set[Path]) -> None:
    """Remove the path and, if it is a folder, all that is in it, except the paths to keep; follow no links.

    Raises UserError if the system refuses.
    """
    is_folder = path.is_dir() and not path.is_symlink()
    try:
        for below in list(path.iterdir()) if is_folder else []:
            remove_others(below, kept)
        if path not in kept:
            path.rmdir() if is_folder else path.unlink()
    except OSError as error:
        raise UserError(f"{path}: cannot be removed: {error.strerror}: fix this, then run `dvc repro`") from error


def run(params: Params) -> str:
    """Read the history, draw the pictures, write them, remove those of an earlier run; return how many they are."""
    settings = params.plot
    snapshots = history.read_snapshots("data/history.npz")
    columns = snapshots.columns or unnamed(snapshots.x.shape[1], snapshots.y.shape[1])
    losses = history.read_losses("data/loss.csv")
    epochs = len(losses["loss"])
    if epochs != snapshots.epochs[-1]:
        raise UserError(f"data/loss.csv: must have {snapshots.epochs[-1]} epochs, got {epochs}: run `dvc repro`")

    learning = [f"data/plots/learning/{epoch}.png" for epoch in snapshots.epochs]
    of_data, of_learning = (draw_class_data, draw_confusions) if columns.classes else (draw_data, draw_learning)
    ticks = (feature.ticks() for feature in columns.features)
    names = chain(columns.feature_names, columns.target_names, columns.classes, *ticks)
    with fonts_for(names) as without_font, showing(len(learning), "picture") as advance:
        write_picture("data/plots/data.png", of_data(snapshots.x, snapshots.y, columns, settings.dpi))
        write_picture("data/plots/loss.png", draw_losses(losses, settings.dpi, classes=bool(columns.classes)))
        frames = write_pictures(learning, of_learning(snapshots, columns, settings.dpi), advance)
        shown = set(evenly_spread(len(learning), settings.max_frames))
        animated = (frame for index, frame in enumerate(frames) if index in shown)
        write_animation("data/plots/learning.gif", animated, settings.frame_seconds)
    written = ["data/plots/data.png", "data/plots/loss.png", "data/plots/learning.gif", *learning]
    remove_others(Path("data/plots"), {path for name in written for path in (Path(name), Path(name).parent)})
    return f"{counted(len(written), 'picture')}{boxes(without_font)} -> data/plots"
