"""docs/experiments.md shows what its commands print, run in order in a fresh clone."""

import platform
import re
import subprocess
import sys
import time

import psutil

from tests.conftest import ENVIRONMENT, PROJECT, Copy

PAGE = (PROJECT / "docs/experiments.md").read_text(encoding="utf-8")
SAME_BITS = (sys.platform, platform.machine()) == ("linux", "x86_64")  # as on the machine that wrote the page


def blocks() -> list[tuple[str, list[str]]]:
    """Return each command of the page, and the lines that the page shows below it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:].partition("  #")[0], []))
            else:
                found[-1][1].append(line)
    return found


def bare(line: str) -> str:
    """Return a line without what differs from run to run: hashes, times, how a run got its number."""
    line = re.sub(r"\b[0-9a-f]{7,8}\b", "HASH", line)
    line = re.sub(r"\d\d:\d\d [AP]M|\(\d+\.\d s\)|\(found\)|^\[\d+/", "", line)
    line = re.sub(r"\b(main|master)\b", "BRANCH", line)
    line = line if SAME_BITS else re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", line)
    return " ".join(line.split())


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
        for command, shown in blocks():
            swept = command.startswith("python -m tools.sweep")
            if swept:
                before = copy.run("git", "status", "--porcelain"), copy.read("params.yaml"), copy.read("data/net.pkl")
                cut_off(copy, command)
            printed = copy.run("bash", "-c", command, COLUMNS="120")
            lines = list(map(bare, printed.splitlines()))
            for line in map(bare, shown):
                assert line == "…" or line in lines, f"{command}: {line!r} is not in\n{printed}"
            if "queue start" in command:
                wait_for_the_queue(copy)
            if swept:
                assert 1 <= printed.count("(found)") < 4
                after = copy.run("git", "status", "--porcelain"), copy.read("params.yaml"), copy.read("data/net.pkl")
                assert before == after
                assert copy.read("sweeps/train.learning_rate-test_rmse.png").startswith(b"\x89PNG")
    finally:
        copy.run("dvc", "queue", "stop", "--kill")


def test_every_command_of_the_page_shows_output_or_is_a_commit() -> None:
    for command, shown in blocks():
        assert shown or command.startswith("git commit")
