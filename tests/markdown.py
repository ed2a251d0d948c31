"""The blocks of a page of the documentation, the commands in them, and whether these print what the page shows."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.conftest import SAME_BYTES


class Block(NamedTuple):
    section: str  # the heading above it
    language: str  # the word after the three backticks
    text: str


class Command(NamedTuple):
    section: str  # the heading above it
    text: str  # without the prompt and the comment
    shown: str  # the output that the page shows below it; "" if it shows none


def blocks(page: Path, language: str) -> list[Block]:
    """Return the blocks of a page in a language, in order; the language of a block without one is ""."""
    every: list[Block] = []
    section, inside = "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
            if inside:
                every.append(Block(section, line.strip().removeprefix("```"), ""))
        elif inside:
            every[-1] = every[-1]._replace(text=f"{every[-1].text}{line}\n")
        elif line.startswith("#"):
            section = line.lstrip("# ")
    return [block._replace(text=textwrap.dedent(block.text)) for block in every if block.language == language]


def commands(page: Path) -> list[Command]:
    """Return the commands of a page, in order: the lines of its `console` blocks that start with `$ `."""
    every: list[Command] = []
    for block in blocks(page, "console"):
        for line in block.text.splitlines():
            if line.startswith("$ "):
                every.append(Command(block.section, re.sub(r"\s+# .*", "", line[2:]), ""))
            else:
                every[-1] = every[-1]._replace(shown=f"{every[-1].shown}{line}\n")
    return every


def difference(command: Command, printed: str) -> str:
    """Return the first line that the page shows and the command did not print, with all that it printed; "" if none.

    The lines must be printed in the order of the page. Other lines may come between them; a page may show that by a
    line `…`.
    """
    lines = [comparable(line) for line in printed.splitlines()]
    for line in map(comparable, command.shown.splitlines()):
        if line in ("", "…"):
            continue
        if line not in lines:
            return f"$ {command.text}\nthe page shows {line!r}, but this is missing or out of order in\n{printed}"
        del lines[: lines.index(line) + 1]
    return ""


def comparable(line: str) -> str:
    """Return a line without what differs from run to run: hashes, times, widths.

    Numbers stay only on systems whose results are the committed bytes.
    """
    line = re.sub(r"(?<!\.)\b[0-9a-f]{7,8}\b", "HASH", line)
    line = re.sub(r"[A-Z][a-z]{2} \d\d, \d{4}", "", line)  # what DVC shows for a time before midnight
    line = re.sub(r"\d\d:\d\d [AP]M|\((\d+ (h|min) )?\d+(\.\d)? (s|min)\)", "", line)
    line = re.sub(r"\b(main|master)\b", "BRANCH", line)
    line = line if SAME_BYTES else re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", line)
    return " ".join(re.sub(r"[-─]{3,}", "---", line).split())
