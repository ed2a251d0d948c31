"""docs/experiments.md shows what its commands print, run in order in a fresh clone."""

import re
import subprocess
import time
from contextlib import suppress

import psutil

from tests.conftest import ENVIRONMENT, PROJECT, Copy
from tests.markdown import commands, difference

PAGE = PROJECT / "docs/experiments.md"


def wait_for_the_queue(copy: Copy) -> None:
    deadline = time.monotonic() + 240
    while re.search("Queued|Running", copy.run("dvc", "queue", "status")):
        assert time.monotonic() < deadline
        time.sleep(2)


def interrupt(copy: Copy, command: str) -> None:
    """Start a sweep; when its first run has ended, kill all its processes, as a power failure would."""
    started = subprocess.Popen(
        command.split(), cwd=copy.path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert started.stdout
    assert started.stdout.readline().startswith("[1/")
    for process in [*psutil.Process(started.pid).children(recursive=True), psutil.Process(started.pid)]:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            process.kill()
    started.communicate()


def test_each_command_of_the_page_prints_what_the_page_shows(copy: Copy) -> None:
    try:
        for command in commands(PAGE):
            sweep = command.text.startswith("python -m tools.sweep")
            if sweep:
                before = copy.run("git", "status", "--porcelain"), copy.read("params.yaml"), copy.read("data/net.pkl")
                interrupt(copy, command.text)
            printed = copy.run("bash", "-c", command.text, COLUMNS="120")
            unlike_page = difference(command, printed, any_order=sweep)  # which runs two at a time
            assert not unlike_page, unlike_page
            if "queue start" in command.text:
                wait_for_the_queue(copy)
            if sweep:
                assert 1 <= printed.count("(found)") < 4
                after = copy.run("git", "status", "--porcelain"), copy.read("params.yaml"), copy.read("data/net.pkl")
                assert before == after
                assert copy.read("sweeps/train.learning_rate-test_rmse.png").startswith(b"\x89PNG")
    finally:
        copy.run("dvc", "queue", "stop", "--kill")


def test_every_command_of_the_page_shows_output_or_is_a_commit() -> None:
    for command in commands(PAGE):
        assert command.shown or command.text.startswith("git commit")
