"""Load matplotlib with its own settings and font, so that the pictures do not depend on those of the user."""

import json
import os
import tempfile
from importlib import import_module
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


def load_matplotlib() -> None:
    """Import matplotlib without the user's settings and fonts.

    It looks for them once, when it is imported: in the environment, the working folder and a folder in the user's home.
    Meanwhile a temporary folder replaces both folders.
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
            import_module("matplotlib.backends.backend_agg")
        finally:
            os.chdir(here)
            del os.environ["MPLCONFIGDIR"]
