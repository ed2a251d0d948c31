"""The blocks of a page of the documentation, the commands in them, and whether these print what the page shows."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.conftest import SAME_BYTES


class Block(NamedTuple):
    section: str  # the heading above it
    language: str  # what stands behind the three backticks
    text: str


class Command(NamedTuple):
    section: str  # the heading above it
    text: str  # as one types it, without the comment behind it
    shown: str  # the output that the page shows below it; "" if it shows none


def blocks(page: Path, language: str) -> list[Block]:
    """Return the blocks of a page in a language, in order; `""` for those that name none."""
    found: list[Block] = []
    section, inside = "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
            if inside:
                found.append(Block(section, line.strip().removeprefix("```"), ""))
        elif inside:
            found[-1] = found[-1]._replace(text=f"{found[-1].text}{line}\n")
        elif line.startswith("#"):
            section = line.lstrip("# ")
    return [each._replace(text=textwrap.dedent(each.text)) for each in found if each.language == language]


def commands(page: Path) -> list[Command]:
    """Return the commands of a page, in order: the lines of its `console` blocks that start with `$ `."""
    found: list[Command] = []
    for block in blocks(page, "console"):
        for line in block.text.splitlines():
            if line.startswith("$ "):
                found.append(Command(block.section, re.sub(r"\s+# .*", "", line[2:]), ""))
            else:
                found[-1] = found[-1]._replace(shown=f"{found[-1].shown}{line}\n")
    return found


def missing(command: Command, printed: str, *, any_order: bool = False) -> str:
    """Return which line that the page shows a command did not print, and what it printed instead; "" if none.

    The lines must be printed in the order of the page, except those of things that run at the same time (`any_order`).
    Others may stand between them; a page may say so by a line `…`.
    """
    lines = [bare(line) for line in printed.splitlines()]
    for line in map(bare, command.shown.splitlines()):
        if line in ("", "…"):
            continue
        if line not in lines:
            return f"$ {command.text}\nthe page shows {line!r}, which is not, or not in this place, in\n{printed}"
        if not any_order:
            del lines[: lines.index(line) + 1]
    return ""


def bare(line: str) -> str:
    """Return a line without what differs from run to run: hashes, times, widths, how a run got its number.

    The numbers stay only where the bytes are those of the machine that wrote the page.
    """
    line = re.sub(r"(?<!\.)\b[0-9a-f]{7,8}\b", "HASH", line)
    line = re.sub(r"\d\d:\d\d [AP]M|\(\d+\.\d s\)|\(found\)|^\[\d+/", "", line)
    line = re.sub(r"\b(main|master)\b", "BRANCH", line)
    line = line if SAME_BYTES else re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", line)
    return " ".join(re.sub(r"[-─]{3,}", "---", line).split())
