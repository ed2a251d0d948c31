"""docs/experiments.md shows what its commands print, run in order in a fresh clone."""

import re
import subprocess
import time

import psutil

from tests.conftest import ENVIRONMENT, PROJECT, Copy
from tests.markdown import commands, missing

PAGE = PROJECT / "docs/experiments.md"


def wait_for_the_queue(copy: Copy) -> None:
    deadline = time.monotonic() + 240
    while re.search("Queued|Running", copy.run("dvc", "queue", "status")):
        assert time.monotonic() < deadline
        time.sleep(2)


def cut_off(copy: Copy, command: str) -> None:
    """Start a command, and kill it and all that it started once it has told of its first run, as a power cut would."""
    started = subprocess.Popen(
        command.split(), cwd=copy.path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert started.stdout
    assert started.stdout.readline().startswith("[1/")
    for process in [*psutil.Process(started.pid).children(recursive=True), psutil.Process(started.pid)]:
        process.kill()
    started.communicate()


def test_each_command_of_the_page_prints_what_the_page_shows(copy: Copy) -> None:
    try:
        for command in commands(PAGE):
            swept = command.text.startswith("python -m tools.sweep")
            if swept:
                before = copy.run("git", "status", "--porcelain"), copy.read("params.yaml"), copy.read("data/net.pkl")
                cut_off(copy, command.text)
            printed = copy.run("bash", "-c", command.text, COLUMNS="120")
            told = missing(command, printed, any_order=swept)  # two runs at a time
            assert not told, told
            if "queue start" in command.text:
                wait_for_the_queue(copy)
            if swept:
                assert 1 <= printed.count("(found)") < 4
                after = copy.run("git", "status", "--porcelain"), copy.read("params.yaml"), copy.read("data/net.pkl")
                assert before == after
                assert copy.read("sweeps/train.learning_rate-test_rmse.png").startswith(b"\x89PNG")
    finally:
        copy.run("dvc", "queue", "stop", "--kill")


def test_every_command_of_the_page_shows_output_or_is_a_commit() -> None:
    for command in commands(PAGE):
        assert command.shown or command.text.startswith("git commit")
