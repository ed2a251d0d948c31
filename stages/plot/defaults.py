"""matplotlib, loaded with its own settings and font, so that the pictures do not depend on those of the user.

Whatever draws imports the parts of matplotlib from here.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.runtime import files
from stages.runtime.errors import UserError

SETTINGS = ("MATPLOTLIBRC", "MPLBACKEND", "MPLCONFIGDIR")  # environment variables for the user's own settings

# The only font in the pictures, one that comes with matplotlib, in the format of matplotlib's cached list of the
# system's fonts. matplotlib rebuilds that list, which can take seconds, if it finds none or if
# FontManager.__version__ is not the version in the file's name.
FONT_LIST = "fontlist-v390.json"
FONTS = {
    "__class__": "FontManager",
    "_version": 390,
    "_FontManager__default_weight": "normal",
    "default_size": None,
    "defaultFamily": {"ttf": "DejaVu Sans", "afm": "Helvetica"},
    "afmlist": [],
    "ttflist": [
        {
            "__class__": "FontEntry",
            "fname": "fonts/ttf/DejaVuSans.ttf",
            "name": "DejaVu Sans",
            "weight": 400,
            "size": "scalable",
        }
    ],
}


@contextmanager
def matplotlib_defaults() -> Iterator[None]:
    """Hide the user's settings and fonts from matplotlib, which looks for them once, when it is imported.

    It looks in the environment, the working folder and a folder in the user's home. In the block a temporary folder
    replaces both folders.
    Raises UserError if no temporary folder can be made.
    """
    for name in SETTINGS:
        os.environ.pop(name, None)
    try:
        temporary = tempfile.TemporaryDirectory()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot make a temporary folder: {reason}: fix this, then run `dvc repro`") from error
    with temporary as folder:
        with files.writing(f"{folder}/{FONT_LIST}") as file:
            file.write(json.dumps(FONTS).encode())
        here = Path.cwd()
        os.environ["MPLCONFIGDIR"] = folder
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)
            del os.environ["MPLCONFIGDIR"]


with matplotlib_defaults():
    from matplotlib import rc_context, rcParams
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure
    from matplotlib.font_manager import (
        FontEntry,
        FontProperties,
        findfont,
        findSystemFonts,
        fontManager,
        get_font,
        ttfFontProperty,
    )
    from matplotlib.ft2font import FT2Font
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

__all__ = [
    "AutoDateLocator",
    "Axes",
    "ConciseDateFormatter",
    "FT2Font",
    "Figure",
    "FigureCanvasAgg",
    "FontEntry",
    "FontProperties",
    "LineCollection",
    "LogLocator",
    "MaxNLocator",
    "NullLocator",
    "findSystemFonts",
    "findfont",
    "fontManager",
    "get_font",
    "rcParams",
    "rc_context",
    "ttfFontProperty",
    "withStroke",
]
