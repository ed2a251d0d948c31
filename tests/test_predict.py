"""The command that predicts from a table, as a user runs it."""

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from stages import models, network
from stages.columns import Columns
from stages.tabular import Tabular
from tests.conftest import ENVIRONMENT, PROJECT, links, posix_errors
from tests.forks import start

COLUMNS = Columns(features=["area", "region"], targets=["price", "the, rent"], categories={"region": ["n", "s"]})
pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes or terminals that have names")
TABLE = "name,region,area\nred house,s,70\n'blue',n,1e2\n"


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(columns: Columns = COLUMNS, hidden: int = 5) -> torch.nn.Module:
    """Write a network for these columns as net.pkl and net_params.pkl."""
    n_feature, n_output = len(columns.x_names()), len(columns.targets)
    net = Tabular(network.build(network.Network(style="module", hidden=hidden), n_feature, n_output, seed=3), columns)
    net.fit(100 * torch.rand(9, n_feature), 1000 * torch.rand(9, n_output))
    models.save_net("net.pkl", net)
    models.save_params("net_params.pkl", net)
    return net


def predict(*arguments: str, status: int = 0) -> str:
    """Run the command; return its stdout and stderr."""
    process = start(
        Path.cwd(), ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}, "python", "-m", "stages.predict", *arguments
    )
    output = process.communicate(timeout=300)[0]
    assert process.wait() == status, output
    return output


@pytest.mark.parametrize("model", ["net.pkl", "net_params.pkl"])
def test_either_model_predicts_a_table_in_its_order_by_the_names_of_its_columns(model: str) -> None:
    net = save()
    Path("table.csv").write_text(TABLE)
    header, *rows = csv.reader(io.StringIO(predict(model, "table.csv")))
    assert header == COLUMNS.targets
    expected = net(torch.tensor([[70.0, 0.0, 1.0], [100.0, 1.0, 0.0]])).detach()
    assert np.array(rows, dtype=np.float32) == pytest.approx(expected.numpy(), rel=1e-6)


def test_the_predictions_are_written_to_a_file_whole_or_not_at_all() -> None:
    save()
    Path("table.csv").write_text(TABLE)
    assert predict("net.pkl", "table.csv", "-o", "out/predictions.csv") == ""
    assert Path("out/predictions.csv").read_text() == predict("net.pkl", "table.csv")
    Path("table.csv").write_text(TABLE + "green,w,80\n")
    predict("net.pkl", "table.csv", "-o", "other.csv", status=2)
    assert not Path("other.csv").exists()


def test_a_lesson_model_predicts_a_table_with_a_column_x() -> None:
    net = network.build(network.Network(style="sequential", hidden=10), 1, 1, seed=3)
    models.save_net("net.pkl", net)
    Path("table.tsv").write_text("z\tx\n1\t0.5\n")
    assert predict("net.pkl", "table.tsv").splitlines()[0] == "y"
    assert float(predict("net.pkl", "table.tsv").splitlines()[1]) == pytest.approx(net(torch.tensor([[0.5]])).item())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "region,area\nw,70\n",
            r"table.csv: column region: 1 value is not in the training rows, such as 'w', in row 1: .*",
        ),
        ("region,area\ns,\n", r"table.csv: column area: 1 value is missing, in row 1: .*"),
        ("region,area\ns,big\n", r"table.csv: column area: 1 value is not numeric, such as 'big', in row 1: .*"),
        ("region,size\ns,3\n", r"table.csv: has no column area: it has region, size"),
        ("region,area\n", r"table.csv: has no rows"),
        (
            "region,area\ns,3\nn,3e38\n",
            r"table.csv: row 2 has values so far from those trained on that none can be predicted",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_reported_in_one_line(table: str, message: str) -> None:
    net = save()
    with torch.no_grad():
        net.get_parameter("net.hidden.weight").fill_(1e3)
    models.save_net("net.pkl", net)
    Path("table.csv").write_text(table)
    assert re.fullmatch(message + "\n", predict("net.pkl", "table.csv", "-o", "predictions.csv", status=2))


@pipes
def test_a_table_or_model_that_changes_while_it_is_read_is_reported() -> None:
    save(Columns(features=["a"], targets=["y"]))
    Path("table").mkdir()
    parquet.write_table(pa.table({"a": np.arange(1e6)}), "table/1.parquet")
    parquet.write_table(pa.table({"a": np.arange(100.0)}), "table/2.parquet")
    os.mkfifo("predictions.csv")
    command = [sys.executable, "-m", "stages.predict", "net.pkl", "table", "-o", "predictions.csv"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        with Path("predictions.csv").open("rb") as predictions:
            assert (
                predictions.readline() == b"y\n"
            )  # the first file's predictions fill the pipe before the second is read
            parquet.write_table(pa.table({"a": [0.0]}), "new.parquet")
            Path("new.parquet").replace("table/2.parquet")
            save(Columns(features=["a"], targets=["y"]), 6)
            predictions.read()
        message = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    again = "changed while it was read: predict again\n"
    assert sorted(message.splitlines(keepends=True)) == [f"net.pkl: {again}", f"table/2.parquet: {again}"]
    assert Path("predictions.csv").is_fifo()


@pipes
def test_a_terminal_or_another_device_is_written_to() -> None:
    save()
    Path("table.csv").write_text(TABLE)
    expected = predict("net.pkl", "table.csv")
    main, device = os.openpty()
    assert predict("net.pkl", "table.csv", "-o", os.ttyname(device)) == ""
    assert os.read(main, 1 << 16).decode().replace("\r\n", "\n") == expected


@links
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_the_file_that_it_points_to_is_written(exists: bool) -> None:
    save()
    Path("table.csv").write_text(TABLE)
    Path("folder").mkdir()
    if exists:
        Path("folder/real.csv").write_text("old")
    Path("link.csv").symlink_to("folder/real.csv")
    assert predict("net.pkl", "table.csv", "-o", "link.csv") == ""
    assert Path("link.csv").is_symlink()
    assert Path("folder/real.csv").read_text() == predict("net.pkl", "table.csv")
    assert [file.name for file in Path("folder").iterdir()] == ["real.csv"]


@links
def test_a_read_only_file_behind_a_link_is_not_replaced() -> None:
    save()
    Path("table.csv").write_text(TABLE)
    cached = Path("cached").resolve()
    cached.write_text("old")
    cached.chmod(0o444)
    Path("link.csv").symlink_to("cached")
    message = predict("net.pkl", "table.csv", "-o", "link.csv", status=2)
    assert message == f"link.csv: links to {cached}, which is read-only, as in DVC's cache: delete the link\n"
    assert cached.read_text() == "old"


def test_the_folder_that_is_read_is_not_written_to() -> None:
    save(Columns(features=["a"], targets=["y"]))
    Path("table").mkdir()
    parquet.write_table(pa.table({"a": [1.0]}), "table/1.parquet")
    message = predict("net.pkl", "table", "-o", "./table/predictions.csv", status=2)
    assert message == "./table/predictions.csv: must not be in table, the folder that is read\n"


@posix_errors
def test_a_folder_in_the_place_of_the_output_is_reported() -> None:
    save()
    Path("table.csv").write_text(TABLE)
    Path("out").mkdir()
    message = predict("net.pkl", "table.csv", "-o", "out", status=2)
    assert message == "out: cannot be written: Is a directory: fix this, then predict again\n"


def test_names_are_matched_without_regard_to_how_accents_are_encoded() -> None:
    composed, decomposed = "Gr\u00f6\u00dfe", "Gro\u0308\u00dfe"
    for trained, written in ((composed, decomposed), (decomposed, composed)):
        save(Columns(features=[trained], targets=["y"]))
        Path("table.csv").write_text(f"{written}\n1\n", encoding="utf-8")
        assert predict("net.pkl", "table.csv").startswith("y\n")


def test_a_quote_that_would_swallow_rows_is_reported() -> None:
    save(Columns(features=["a"], targets=["y"]))
    Path("table.csv").write_text('a,note\n1,x\n2,"ok\n3,y\n')
    message = predict("net.pkl", "table.csv", "-o", "predictions.csv", status=2)
    assert message == "table.csv: line 3: the quote that opens here is never closed: close it, or remove it\n"


@pytest.mark.parametrize("output", ["net.pkl", "folder/../table.csv"])
def test_what_is_read_is_never_replaced(output: str) -> None:
    save()
    Path("folder").mkdir()
    Path("table.csv").write_text(TABLE)
    message = predict("net.pkl", "table.csv", "-o", output, status=2)
    assert message == f"{output}: must be another file than {Path(output).name}, which it would replace\n"
    assert Path("table.csv").read_text() == TABLE


def test_missing_files_are_reported_in_one_line() -> None:
    assert predict("net.pkl", "table.csv", status=2) == "net.pkl: is missing: run `dvc repro`\n"
    save()
    assert predict("net.pkl", "table.csv", status=2).startswith("table.csv: is missing: ")


@pytest.mark.skipif(os.name == "nt", reason="the shell of Windows has no head")
def test_a_reader_that_stops_early_ends_the_command_quietly() -> None:
    save(Columns(features=["a"], targets=["y"]))
    parquet.write_table(pa.table({"a": np.arange(1e6)}), "table.parquet")
    line = f"{sys.executable} -m stages.predict net.pkl table.parquet | head -n 1"
    environment = ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True)
    assert (done.stdout, done.stderr) == (b"y\n", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_reported_in_one_line() -> None:
    save()
    Path("table.csv").write_text(TABLE)
    command = [sys.executable, "-m", "stages.predict", "net.pkl", "table.csv"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, env=ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}, stdout=full, stderr=-1)
    assert (done.returncode, done.stderr) == (2, b"standard output: cannot be written: No space left on device\n")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the most memory that a process had")
def test_the_memory_does_not_grow_with_the_table() -> None:
    most = []
    for rows, hidden in ((1 << 20, 5), (1 << 23, 5), (1 << 17, 2000)):
        save(Columns(features=["a", "b"], targets=["y"]), hidden)
        values = np.random.default_rng(1).random((2, rows), dtype=np.float32)
        parquet.write_table(pa.table(list(values), ["a", "b"]), "table.parquet")
        lines = """
            import re, runpy, sys
            from pathlib import Path
            sys.argv[1:] = ["net.pkl", "table.parquet", "-o", "predictions.csv"]
            runpy.run_module("stages.predict", run_name="__main__")
            print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        """
        environment = ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}
        lines = "\n".join(line[12:] for line in lines.splitlines())
        done = subprocess.run([sys.executable, "-c", lines], env=environment, check=True, stdout=-1, text=True)
        most.append(int(done.stdout) << 10)
        assert Path("predictions.csv").read_bytes().count(b"\n") == rows + 1
    assert max(most) - most[0] < 40 << 20  # bytes
