"""docs/trouble.md: every fault is caused, must print a message of the page, and is repaired by the page's commands."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.runtime.errors import UserError
from stages.train import ranks
from stages.train.compiled import library
from tests.conftest import PROJECT, Copy
from tests.markdown import Command, blocks, commands, difference

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the page shows the commands of a POSIX shell")
PAGE = PROJECT / "docs/trouble.md"


def quoted_on_the_page(section: str, output: str) -> bool:
    """Return whether an output contains a line that the page quotes below a heading; `…` stands for anything."""
    quoted = [line for block in blocks(PAGE, "") if block.section == section for line in block.text.splitlines()]
    if not quoted:
        text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
        quoted = re.findall(r"(?m)^\| `(.+?)` \|", text)
    return any(re.search(re.escape(line).replace("…", ".*"), output) for line in quoted)


def follow(section: str, copy: Copy) -> list[str]:
    """Run the commands of a section, which must succeed; return their outputs."""
    outputs = []
    for command in commands_of(section):
        outputs.append(copy.run("bash", "-c", command.text))
        unlike_page = difference(command, outputs[-1])
        assert not unlike_page, unlike_page
    return outputs


def commands_of(section: str) -> list[Command]:
    """Return the commands of a section of the page."""
    of_section = [command for command in commands(PAGE) if command.section == section]
    assert of_section
    return of_section


def test_after_a_failed_stage_the_last_commit_comes_back(done: Copy) -> None:
    done.set(train__learning_rate=1e9)
    output = done.run("dvc", "repro", status=255)
    said = "the loss is inf at epoch 2: lower train.learning_rate"
    ended = "ERROR: failed to reproduce 'train': failed to run: python -m stages train, exited with 2"
    assert f"\n{said}\n{ended}\n" in output
    assert quoted_on_the_page("A stage failed", output)
    assert "Running stage" not in follow("A stage failed", done)[-1]
    assert done.run("git", "status", "--porcelain") == ""


def test_a_rate_that_is_too_high_is_named_and_lowered(done: Copy) -> None:
    done.set(train__learning_rate=1.0)
    section = "The network is no better than the mean"
    assert quoted_on_the_page(section, re.sub(r"\(.*\)", "(1.2 s)", done.stage("train")))
    assert "no better" not in follow(section, done)[-1]


def test_a_quote_that_would_swallow_rows_is_shown_with_its_line(done: Copy) -> None:
    section = "A quote in a table"
    for rest in ("3,z\n", '3,z\n4,"z\n', '3,z\n4,z"\n'):  # never closed, closed too late, closed around rows
        (done.path / "data/raw/cars.csv").write_text(f'x,b\n1,x\n2,"y\n{rest}')
        output = done.run("python", "-m", "stages.predict", "data/net.pkl", "data/raw/cars.csv", status=2)
        assert quoted_on_the_page(section, output)
        assert follow(section, done) == ['2,"y\n']


def test_params_that_change_while_a_stage_runs_are_reported(done: Copy) -> None:
    done.set(train__epochs=5000)
    (done.path / ".lock/train").unlink(missing_ok=True)
    stage = done.start("python", "-m", "stages", "train")
    while not (done.path / ".lock/train").exists():
        assert stage.poll() is None
        time.sleep(0.01)
    done.set(train__epochs=200)
    section = "Something changed meanwhile"
    assert quoted_on_the_page(section, stage.communicate(timeout=200)[0])
    follow(section, done)
    assert done.run("dvc", "status") == "Data and pipelines are up to date.\n"


def test_a_folder_of_libraries_that_others_can_write_becomes_ones_own(
    trained: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".cache/reproducible-training"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    why = library._why_not_usable(folder)
    section = "Compiled steps are refused, or their library is not kept"
    assert quoted_on_the_page(section, f"The compiled library is not kept: {why}")
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in commands_of(section):
        subprocess.run(["bash", "-c", command.text], check=True)
    assert library._why_not_usable(folder) == ""


def test_what_a_rank_says_when_another_failed_is_on_the_page() -> None:
    with pytest.raises(UserError) as raised, ranks.exchange():
        raise RuntimeError("Connection closed by peer")
    assert quoted_on_the_page("Another rank failed", str(raised.value))


def test_without_the_environment_dvc_and_the_modules_are_missing(trained: Copy) -> None:
    output = trained.run("bash", "-c", "dvc repro", status=127, PATH="/usr/bin:/bin")
    assert quoted_on_the_page("dvc or a module is not found", output)
    output = trained.run(sys.executable, "-S", "-m", "stages", "generate", status=2)
    assert quoted_on_the_page("dvc or a module is not found", output)


def test_a_merge_conflict_in_dvc_lock_is_resolved_by_dvc_repro(done: Copy) -> None:
    done.run("git", "checkout", "-q", "-b", "other")
    done.set(plot__dpi=30)
    done.repro("plot")
    done.commit("small pictures")
    done.run("git", "checkout", "-q", "-")
    done.set(plot__frame_seconds=0.2)
    done.repro("plot")
    done.commit("slow pictures")
    section = "A merge conflict in dvc.lock"
    assert quoted_on_the_page(section, done.run("git", "merge", "other", status=1))
    assert quoted_on_the_page(section, done.run("dvc", "status", status=1))
    follow(section, done)
    assert done.run("dvc", "status") == "Data and pipelines are up to date.\n"
    assert done.run("git", "status", "--porcelain") == ""
    assert len(done.run("git", "log", "--format=%h", "-1", "--merges").split()) == 1


def test_files_that_nobody_pushed_are_computed_again(done: Copy, tmp_path_factory: pytest.TempPathFactory) -> None:
    done.run("dvc", "remote", "add", "--default", "storage", str(tmp_path_factory.mktemp("storage")))
    (folder,) = (done.path / ".dvc/cache/files").rglob("*.dir")
    folder.unlink()
    shutil.rmtree(done.path / "data/plots")
    section = "Files are missing in the cache"
    assert quoted_on_the_page(section, done.run("dvc", "pull", status=1))
    follow(section, done)
    assert "in sync" in done.run("dvc", "status", "--cloud")


def test_an_output_changed_by_hand_comes_back(done: Copy) -> None:
    losses = done.read("data/loss.csv")
    with (done.path / "data/loss.csv").open("a") as file:
        file.write("x\n")
    section = "An output was changed by hand"
    assert quoted_on_the_page(section, done.run("dvc", "checkout", status=255))
    follow(section, done)
    assert done.read("data/loss.csv") == losses


def test_the_messages_about_a_missing_remote_and_a_missing_version_are_on_the_page(
    trained: Copy, tmp_path: Path
) -> None:
    assert quoted_on_the_page("The remote cannot be used", trained.run("dvc", "push", status=1))
    get = ["dvc", "artifacts", "get", str(trained.path), "network-params", "--out", str(tmp_path)]
    assert quoted_on_the_page("The remote cannot be used", trained.run(*get, status=1))


def test_gc_deletes_what_is_neither_committed_nor_an_experiment(done: Copy) -> None:
    def objects() -> set[Path]:
        return {path for path in (done.path / ".dvc/cache/files").rglob("*") if path.is_file()}

    committed = objects()
    done.set(plot__max_frames=2)
    done.repro("plot")
    done.run("dvc", "exp", "save", "--name", "short")
    saved = objects()
    (done.path / "table.csv").write_text("x,y\n1,2\n")
    done.run("dvc", "add", "table.csv")
    (done.path / "table.csv.dvc").unlink()
    done.run("git", "checkout", "-q", "dvc.lock", "params.yaml")
    assert committed < saved < objects()
    in_git = [done.read(f"data/{name}") for name in ("metrics.json", "errors.csv")]
    kept = {path for path in saved if path.read_bytes() not in in_git}
    _, dry, _ = follow("The cache has grown", done)
    assert "Removing" in dry
    assert objects() == kept


def test_a_moved_project_needs_only_a_new_environment(trained: Copy, tmp_path: Path) -> None:
    copy = trained.twin(tmp_path / "old")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", copy.path / ".venv"], check=True)
    (copy.path / ".venv/bin/dvc").write_text(f"#!{copy.path}/.venv/bin/python\n")  # as pip writes it
    (copy.path / ".venv/bin/dvc").chmod(0o755)
    (copy.path / ".venv/ready").touch()
    copy.run("git", "remote", "add", "origin", "https://git.example.com/old/project.git")
    copy.run("dvc", "remote", "add", "--default", "storage", "/mnt/old/project")
    copy.path = copy.path.rename(tmp_path / "new")
    section = "The project or the remote has moved"
    assert quoted_on_the_page(section, copy.run("make", "repro", status=2, MAKELEVEL="0", MAKEFLAGS=""))
    assert quoted_on_the_page(section, copy.run("bash", "-c", ".venv/bin/dvc repro", status=127))

    texts = [command.text for command in commands_of(section)]
    assert "make repro" in texts
    for text in texts:
        if text != "make repro":  # which would install torch
            copy.run("bash", "-c", text)
    assert not (copy.path / ".venv").exists()
    assert copy.repro() == []
    assert copy.run("git", "config", "remote.origin.url").strip() == "https://git.example.com/new/project.git"
    assert "url = /mnt/new/project" in copy.run("git", "show", "HEAD:.dvc/config")
