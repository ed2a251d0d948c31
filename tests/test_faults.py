"""What breaks from outside: files, disks, memory. Each is reported in one line, and `dvc repro` repairs it."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages import dataset, history, models
from stages.generate import stage as generate
from stages.generate.curve import Curve
from stages.network import Network
from stages.runtime import files
from stages.runtime.errors import UserError
from stages.train import stage as train
from stages.train.settings import Train
from tests.conftest import ENVIRONMENT, PROJECT, Copy, posix_errors
from tests.train.test_stage import SETTINGS

BLUEPRINT = models.Blueprint(Network(style="module", hidden=10), 1, 1)
POINTS = Curve(source="curve", points=100, test_points=50, low=-1.0, high=1.0, noise=0.2, seed=1)
READERS: dict[str, Callable[[str], object]] = {
    "data/train.pt": dataset.read,
    "data/test.pt": dataset.read,
    "data/net.pkl": lambda path: models.restore_net(path, BLUEPRINT),
    "data/net_params.pkl": lambda path: models.restore_params(path, BLUEPRINT),
    "data/history.npz": history.read_snapshots,
    "data/loss.csv": history.read_losses,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What generate and train write, by path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("results"))
        generate.run(generate.Params(kernels="portable", generate=POINTS))
        train.run(train.Params(kernels="portable", network=BLUEPRINT.section, train=Train(**SETTINGS)))
        return {path: Path(path).read_bytes() for path in READERS}


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 1])


def flip_bits(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 80):  # more than the padding of a zip archive
        content[place] ^= 0x80
    path.write_bytes(content)


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [delete, truncate, flip_bits, make_a_folder])
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_reported_in_one_line(
    results: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, harm: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path(name).write_bytes(results[name])
    READERS[name](name)
    if (name, harm) == ("data/loss.csv", truncate):
        pytest.skip("a shorter table is a table; `plot` compares it with the history")
    harm(Path(name))
    with pytest.raises(UserError, match=rf"^{re.escape(name)}: [^\n]*`dvc repro`$"):
        READERS[name](name)


def test_dvc_restores_damaged_files(done: Copy) -> None:
    for name in READERS:
        truncate(done.path / name)
    assert re.fullmatch(r"data/train.pt: [^\n]*`dvc repro`\n", done.stage("train", status=2))
    done.run("dvc", "repro", "-q")
    assert done.run("git", "status", "--porcelain") == ""
    assert done.run("dvc", "status") == "Data and pipelines are up to date.\n"


FULL_DISK = """
import resource
from contextlib import suppress
from stages.runtime.run import main, run

for stage, most_bytes in [("generate", 1000), ("train", 3000), ("plot", 9000), ("evaluate", 300)]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    with suppress(SystemExit):
        main(lambda: run(stage))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is known to limit the size of files so")
def test_a_full_disk_is_reported_in_one_line_and_leaves_no_half_file(done: Copy) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in done.path.glob("data/**/*") if path.is_file()}

    before = content()
    lines = done.run(sys.executable, "-c", FULL_DISK).splitlines()  # no fork, whose output is a file, too
    assert len(lines) == 4
    for line in lines:
        assert re.fullmatch(r"data/[\w./]+: cannot be written: File too large: fix this, then run `dvc repro`", line)
    assert content() == before


@posix_errors
def test_an_output_whose_name_a_folder_has_is_reported(copy: Copy) -> None:
    (copy.path / "data/train.pt").mkdir()
    assert copy.stage("generate", status=2) == (
        "data/train.pt: cannot be written: Is a directory: fix this, then run `dvc repro`\n"
    )


@posix_errors
def test_a_folder_whose_name_a_file_has_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    output = pytest.raises(UserError, match=r"data/x: cannot be written: File exists: fix this, then run `dvc repro`$")
    with output, files.writing(str(tmp_path / "data/x")):
        pass


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_forbids_writing_and_a_file_that_forbids_reading_are_reported(copy: Copy) -> None:
    copy.stage("generate")
    (copy.path / "data/train.pt").chmod(0)
    assert "data/train.pt: cannot be read: Permission denied" in copy.stage("train", status=2)
    (copy.path / "data").chmod(0o500)
    assert "cannot be written: Permission denied" in copy.stage("generate", status=2)
    (copy.path / "data").chmod(0o700)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS grants memory that it does not have")
def test_too_little_memory_is_reported_in_one_line(copy: Copy) -> None:
    copy.set(generate__points=10**12)
    assert copy.stage("generate", status=2).startswith("out of memory: lower generate.points, ")


def test_after_a_stage_failed_the_former_params_bring_its_outputs_back(done: Copy) -> None:
    former = done.read("params.yaml")
    changes: list[tuple[str, dict[str, Any]]] = [
        ("evaluate", {"network__style": "x"}),
        ("plot", {"plot__dpi": 1}),
        ("train", {"train__learning_rate": 1e9}),
        ("generate", {"generate__noise": -1}),
    ]
    for stage, change in changes:  # from the last to the first: DVC deletes the outputs of a stage that fails
        done.set(**change)
        done.run("dvc", "repro", "--single-item", stage, status=255)
        (done.path / "params.yaml").write_bytes(former)
    assert done.repro() == []
    assert done.run("git", "status", "--porcelain") == ""


def test_a_second_dvc_repro_at_once_is_reported_and_harms_nothing(done: Copy) -> None:
    done.set(train__epochs=4000, train__snapshot_every=4000)
    first = subprocess.Popen(
        ["dvc", "repro", "train"], cwd=done.path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout
    while "'train'" not in first.stdout.readline():
        time.sleep(0.01)
    output = done.run("dvc", "repro", status=255)
    assert "busy" in output or "lock" in output
    assert "Traceback" not in output
    first.communicate(timeout=900)
    assert first.returncode == 0
    assert done.repro("train") == []


def replace(copy: Copy) -> None:
    path = copy.path / "data/train.pt"
    path.with_suffix(".new").write_bytes(path.read_bytes() + b"more")
    path.with_suffix(".new").replace(path)


def write_in_place(copy: Copy) -> None:
    with (copy.path / "data/train.pt").open("r+b") as file:
        file.write(b"Q")


def edit_source(copy: Copy) -> None:
    with (copy.path / "stages/train/loop.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")


def edit_params(copy: Copy) -> None:
    copy.set(train__learning_rate=0.1)


def edit_params_of_another_stage(copy: Copy) -> None:
    copy.set(plot__dpi=50)


@pytest.fixture(scope="session")
def longer(trained: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy whose training, not yet done, takes seconds and has a checkpoint at once."""
    copy = trained.twin(tmp_path_factory.mktemp("longer"))
    copy.set_constant("stages/train/checkpoint/store.py", "INTERVAL", 0.05)
    copy.set(train__epochs=4000, train__snapshot_every=4000)
    return copy


def edit_main(copy: Copy) -> None:
    with (copy.path / "stages/__main__.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")


def edit_unused_source(copy: Copy) -> None:
    with (copy.path / "stages/evaluate/metrics.py").open("a", encoding="utf-8") as file:
        file.write("# edited\n")


def repro_while(copy: Copy, *changes: Callable[[Copy], None]) -> tuple[int, str]:
    """Run `dvc repro train`, make the changes while it trains; return the exit status and the output."""
    dvc = copy.start("dvc", "repro", "train")
    while not (copy.path / ".checkpoint/train").exists():
        assert dvc.poll() is None
        time.sleep(0.01)
    for change in changes:
        change(copy)
    output = dvc.communicate(timeout=900)[0]
    return dvc.wait(), output


@pytest.mark.parametrize(
    "changes",
    [
        {"params.yaml: train": edit_params},
        {"data/train.pt": replace, "stages/train/loop.py": edit_source, "stages/__main__.py": edit_main},
        {"data/train.pt": write_in_place},
    ],
    ids=", ".join,
)
def test_what_changes_while_a_stage_runs_is_reported_and_nothing_is_recorded(
    longer: Copy, tmp_path: Path, changes: dict[str, Callable[[Copy], None]]
) -> None:
    copy = longer.twin(tmp_path)
    lock, params = copy.read("dvc.lock"), copy.read("params.yaml")
    status, output = repro_while(copy, *changes.values())
    assert status == 255
    for name in changes:
        assert f"{name}: changed while the stage ran: run `dvc repro` again\n" in output
    assert copy.read("dvc.lock") == lock
    assert (copy.path / ".checkpoint/train").exists()
    if edit_params not in changes.values():
        return
    (copy.path / "params.yaml").write_bytes(params)
    assert "Resuming from the checkpoint" in copy.run("dvc", "repro", "train")
    undisturbed = longer.twin(tmp_path / "undisturbed")
    undisturbed.rerun("train")
    assert copy.read("dvc.lock") == undisturbed.read("dvc.lock")


def write_the_same(copy: Copy) -> None:
    copy.stage("generate")
    (copy.path / "stages/train/loop.py").touch()


def test_params_and_code_of_another_stage_may_change_while_one_runs(longer: Copy, tmp_path: Path) -> None:
    copy = longer.twin(tmp_path)
    status, output = repro_while(copy, write_the_same, edit_params_of_another_stage, edit_unused_source)
    assert status == 0, output
    assert copy.repro("train") == []


def test_data_that_is_removed_comes_back_and_git_sees_no_change(done: Copy) -> None:
    before = done.run("git", "status", "--porcelain")
    shutil.copytree(done.path / "data/raw", done.path / "raw")  # a user's own tables, which only git can bring back
    shutil.rmtree(done.path / "data")
    shutil.move(done.path / "raw", done.path / "data/raw")
    assert done.repro() == []
    assert done.run("git", "status", "--porcelain") == before


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for folder in ("benchmarks", "stages", "tests", "tools"):
        for path in (PROJECT / folder).rglob("*.py"):
            yield path.relative_to(PROJECT), ast.parse(path.read_text(encoding="utf-8"))


def test_nothing_in_the_project_runs_what_a_file_says() -> None:
    forbidden = {"eval", "exec", "pickle.load", "pickle.loads", "yaml.load", "torch.hub.load", "os.system"}
    switches = {"weights_only": False, "allow_pickle": True, "shell": True}
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in forbidden, f"{path}:{node.lineno}"
                for keyword in node.keywords:
                    if keyword.arg in switches and isinstance(keyword.value, ast.Constant):
                        assert keyword.value.value is not switches[keyword.arg], f"{path}:{node.lineno}"
                if ast.unparse(node.func) == "torch.load" and path.parts[0] == "stages":
                    assert "weights_only" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"


def test_git_keeps_the_bytes_of_tables(copy: Copy) -> None:
    content = b"a,b\r\n1,2\r\n3,4\n"
    for name in ("data/raw/t.csv", "data/raw/folder/t.tsv"):
        (copy.path / name).parent.mkdir(exist_ok=True)
        (copy.path / name).write_bytes(content)
    copy.commit("tables")
    copy.run("git", "clone", "-q", ".", "clone")
    for name in ("data/raw/t.csv", "data/raw/folder/t.tsv"):
        assert copy.read(f"clone/{name}") == content
    (copy.path / "data/raw/t.csv").write_bytes(content + b"5,6\n")
    assert "+5,6" in copy.run("git", "diff")


def test_what_other_programs_leave_beside_a_table_leaves_generate_as_it_is(done: Copy) -> None:
    (done.path / "data/raw/folder").mkdir()
    for name in (".DS_Store", "folder/.DS_Store", ".~lock.auto-mpg.csv#", "folder/~$cars.xlsx", "~$cars.xls"):
        (done.path / "data/raw" / name).write_bytes(b"1")
    assert done.repro() == []
    (done.path / "data/raw/folder/new.csv").write_bytes(b"1")
    assert done.repro() == ["generate"]
