"""The commands that a page of the documentation shows in its `console` blocks."""

import re
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    section: str  # the heading above it
    text: str  # as one types it, without the comment behind it
    shown: str  # the output that the page shows below it; "" if it shows none


def commands(page: Path) -> list[Command]:
    """Return the commands of a page, in order: the lines of its `console` blocks that start with `$ `."""
    found: list[Command] = []
    section, inside = "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("```"):
            inside = text == "```console"
        elif inside and text.startswith("$ "):
            found.append(Command(section, re.sub(r"\s+# .*", "", text[2:]), ""))
        elif inside:
            found[-1] = found[-1]._replace(shown=f"{found[-1].shown}{line}\n")
        elif line.startswith("#"):
            section = line.lstrip("# ")
    return found
