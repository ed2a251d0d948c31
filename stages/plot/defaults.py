"""Load matplotlib with its own settings and its own font, so that the pictures do not depend on the user's."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages import files
from stages.errors import UserError

SETTINGS = ("MATPLOTLIBRC", "MPLBACKEND", "MPLCONFIGDIR")  # variables by which users tell matplotlib theirs

# The one font of the pictures, which matplotlib brings along, in the format of its list of a system's fonts. It makes
# that list anew, which can take seconds, where there is none or FontManager.__version__ is not that of the file's name.
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
    """Have what the block imports of matplotlib find no settings of the user's, and no font but its own.

    matplotlib looks for them once, when it is imported: in the environment, the working folder and its folder in the
    user's home. In the block a temporary folder takes the place of both folders.
    Raises UserError where no temporary folder can be made.
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
