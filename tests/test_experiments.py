"""docs/experiments.md shows what its commands print, run in order in a clone that `dvc repro` has run in."""

import re
import time

from tests.conftest import PROJECT, Copy
from tests.markdown import commands, difference

PAGE = PROJECT / "docs/experiments.md"


def wait_for_the_queue(copy: Copy) -> None:
    deadline = time.monotonic() + 600
    while re.search("Queued|Running", copy.run("dvc", "queue", "status")):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_each_command_of_the_page_prints_what_the_page_shows(done: Copy) -> None:
    try:
        for command in commands(PAGE):
            text = command.text
            if "queue start" in text:  # its workers keep their output open until they end
                text = f"{text} > .dvc/tmp/started && cat .dvc/tmp/started"
            printed = done.run("bash", "-c", text, COLUMNS="120")
            unlike_page = difference(command, printed)
            assert not unlike_page, unlike_page
            if "queue start" in command.text:
                wait_for_the_queue(done)
        assert done.read("compare.png").startswith(b"\x89PNG")
    finally:
        done.run("dvc", "queue", "stop", "--kill")


def test_every_command_of_the_page_shows_output_or_is_a_commit() -> None:
    for command in commands(PAGE):
        assert command.shown or command.text.startswith("git commit")
