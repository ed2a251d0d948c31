"""docs/luck.md shows what its commands print, run in order in a fresh clone, and the picture that they draw."""

import json
import os
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PROJECT, SAME_BYTES, Copy
from tests.markdown import Command, blocks, commands, difference

PAGE = PROJECT / "docs/luck.md"


@pytest.mark.skipif(os.name == "nt", reason="the page shows the commands of a POSIX shell")
def test_the_commands_print_what_the_page_shows_and_draw_its_picture(done: Copy) -> None:
    first, *others = commands(PAGE)
    run(done, first)
    check_the_table(json.loads(done.read("data/metrics.json")))
    check_the_picture(done)
    for command in others:
        run(done, command)


def run(copy: Copy, command: Command) -> None:
    """Run a command of the page, and check that it prints what the page shows."""
    unlike_page = difference(command, copy.run(*shlex.split(command.text)))
    assert not unlike_page, unlike_page


def check_the_table(metrics: dict[str, float]) -> None:
    rows = re.findall(r"\| `(test_rmse\w*)` \| ([\d.]+) \|", PAGE.read_text(encoding="utf-8"))
    assert [name for name, _ in rows] == [name for name in metrics if name.startswith("test_rmse")]
    for name, value in rows if SAME_BYTES else []:
        assert value == f"{metrics[name]:.4f}"


def check_the_picture(copy: Copy) -> None:
    (block,) = blocks(PAGE, "sh")
    printed = copy.run("bash", "-e", "-c", block.text).splitlines()
    shown = re.findall(r"^# (.+)", block.text, re.MULTILINE)
    assert len(shown) == 3
    if SAME_BYTES:
        assert printed == shown
    pictures = [Image.open(path).convert("RGB") for path in (copy.path / "luck.png", PROJECT / "docs/luck.png")]
    drawn, on_page = (np.asarray(picture, float) for picture in pictures)
    assert drawn.shape == on_page.shape
    assert abs(drawn - on_page).mean() < 2  # of 255: the same picture, in whatever font
