"""The command that predicts from a table, as a user runs it."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from stages import models, network
from stages.columns import Category, Columns, Date, Feature, Number
from stages.tabular import Tabular
from tests.conftest import ENVIRONMENT, PROJECT, links, posix_errors
from tests.forks import start

COLUMNS = Columns(
    features=[
        Number(name="area", fill=80.0, low=50.0, high=120.0),
        Category(name="region", levels=["n", "s"]),
    ],
    targets=[Number(name="price"), Number(name="the, rent")],
)
CLASSES = COLUMNS.model_copy(update={"targets": [Category(name="kind", levels=["a,b", "c=d", "中\n文"])]})
LONE = Columns(features=[Number(name="a", low=0.0, high=1e6)], targets=[Number(name="y")])
pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes or terminals that have names")
TABLE = "name,region,area\nred house,s,70\n'blue',n,1e2\n"


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(columns: Columns = COLUMNS, hidden: int = 5) -> Tabular:
    """Write a network for these columns as net.pkl and net_params.pkl."""
    n_feature, n_output = len(columns.x_names()), len(columns.y_names())
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
    assert header == COLUMNS.target_names
    expected = net(torch.tensor([[70.0, 0.0, 1.0], [100.0, 1.0, 0.0]])).detach()
    assert np.array(rows, dtype=np.float32) == pytest.approx(expected.numpy(), rel=1e-6)


def test_the_predictions_are_written_to_a_file_whole_or_not_at_all() -> None:
    save()
    Path("table.csv").write_text(TABLE)
    assert predict("net.pkl", "table.csv", "-o", "out/predictions.csv") == ""
    assert Path("out/predictions.csv").read_text() == predict("net.pkl", "table.csv")
    Path("table.csv").write_text(TABLE + "green,s\n")
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
        ("region,size\ns,3\n", "table.csv: has no column area: it has region, size"),
        ("region,area\n", "table.csv: has no rows"),
        ("region,area\ns\n", "table.csv: row 1 has 1 value, but the header has 2 names: fix the row"),
    ],
)
def test_a_table_that_does_not_fit_is_reported_in_one_line(table: str, message: str) -> None:
    save()
    Path("table.csv").write_text(table)
    assert predict("net.pkl", "table.csv", "-o", "predictions.csv", status=2) == message + "\n"
    assert not Path("predictions.csv").exists()


@pytest.mark.parametrize(("columns", "empty"), [(LONE, '""'), (COLUMNS, ",")], ids=["one target", "two targets"])
def test_a_row_that_cannot_be_predicted_is_empty_and_costs_no_other_row(columns: Columns, empty: str) -> None:
    save(columns)
    Path("good.csv").write_text("a,area,region\n1,70,s\n4,90,n\n")
    Path("table.csv").write_text("a,area,region\ninf,1e39,s\n1,70,s\n-Infinity,-inf,n\n4,90,n\n1e-46,1e999,n\n")
    said = predict("net.pkl", "table.csv", "-o", "predictions.csv", status=1)
    assert said == (
        f"table.csv: column {columns.feature_names[0]}: 3 values that float32 cannot hold, in rows 1, 3, 5\n"
        "table.csv: 3 rows without a prediction, in rows 1, 3, 5\n"
    )
    header, *lines = Path("predictions.csv").read_text().splitlines()
    expected_header, *expected = predict("net.pkl", "good.csv").splitlines()
    assert header == expected_header
    assert lines[::2] == [empty] * 3
    values, expected_values = (np.loadtxt(rows, delimiter=",") for rows in (lines[1::2], expected))
    assert values == pytest.approx(expected_values, rel=1e-6)
    assert predict("net.pkl", "table.csv", "-o", "again.csv", "--allow-gaps") == said
    assert Path("again.csv").read_bytes() == Path("predictions.csv").read_bytes()


SOLD = Date.fit("sold", np.array([18262.0, 18700.0]), "day/month/year")


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        ("50,n,1/2/2020", ""),
        ("-20,n,1/2/2030", ""),  # dates go on
        ("191,n,1/2/2020\n60,s,\n-21,s,\n", "area: 2 values far outside the training range 50 to 120, in rows 1, 3"),
        ("70,w,1/2/2020", "region: 1 value rare or new, in row 1"),
        ("big,n,1/2/2020", "area: 1 value not a number, taken as missing, in row 1"),
        ("70,n,2020-02-01", "sold: 1 value not a date written as day/month/year, taken as missing, in row 1"),
        ("70,n,30/2/2020", "sold: 1 value not a date written as day/month/year, taken as missing, in row 1"),
        (",n,1/2/2020\n" * 9, "area: 9 values missing, unlike in the training rows, first in rows 1, 2, 3"),
        ("?,,none", "region: 1 value missing, unlike in the training rows, in row 1"),
        (
            "-,w,1/2/2020",
            "area: 1 value not a number, taken as missing, in row 1\nregion: 1 value rare or new, in row 1",
        ),
    ],
)
def test_what_is_unusual_is_said_and_predicted(table: str, lines: str) -> None:
    dated = SOLD.model_copy(update={"gaps": 1})
    area = Number(name="area", gaps=int(table.startswith("?")), fill=80.0, low=50.0, high=120.0)
    region = Category(name="region", levels=["n", "s"])
    save(Columns(features=[area, region, dated], targets=COLUMNS.targets, missing=["?", "none"]))
    Path("table.csv").write_text(f"area,region,sold\n{table}\n")
    expected = "".join(f"table.csv: column {line}\n" for line in lines.splitlines())
    assert predict("net.pkl", "table.csv", "-o", "predictions.csv") == expected
    predictions = np.loadtxt("predictions.csv", delimiter=",", skiprows=1, ndmin=2)
    assert predictions.shape == (len(table.split()), 2)
    assert np.isfinite(predictions).all()


def test_missing_values_of_every_kind_are_predicted_as_in_training() -> None:
    cells = np.array([10.0, 14.0, np.nan])
    features: list[Feature] = [
        Number.fit("area", np.array([50, 70, np.nan], np.float32)),
        Category(name="region", levels=["n", "s"], gaps=1),
        Date.fit("sold", cells, "year-month-day"),
    ]
    net = save(Columns(features=features, targets=LONE.targets))
    Path("table.csv").write_text("area,region,sold\n,n,1970-01-11\n50,,1970-01-15\n70,s,\n,NA,NaN\n")
    _, *predictions = predict("net.pkl", "table.csv").splitlines()
    x = [  # area, area (missing), region=n, region=s, region (missing), sold, sold (missing)
        [60, 1, 1, 0, 0, 0, 0],
        [50, 0, 0, 0, 1, 4, 0],
        [70, 0, 0, 1, 0, 2, 1],
        [60, 1, 0, 0, 1, 2, 1],
    ]
    expected = net(torch.tensor(x, dtype=torch.float32)).detach()[:, 0]
    assert np.array(predictions, np.float32) == pytest.approx(expected.numpy(), rel=1e-6)


@pytest.mark.parametrize("form", ["day/month/year", "year-month-day"])
def test_dates_in_text_and_as_timestamps_are_the_same(form: str) -> None:
    save(Columns(features=[SOLD.model_copy(update={"form": form})], targets=LONE.targets))
    moments = np.array(["2020-02-01T00:00", "2021-12-31T18:30"], "datetime64[s]")
    written = ["1/2/2020", "31/12/2021 18:30"] if form == "day/month/year" else ["2020-02-01", "2021-12-31T18:30:00"]
    Path("text.csv").write_text("\n".join(["sold", *written]) + "\n")
    expected = predict("net.pkl", "text.csv")
    for unit in ("s", "ms", "us", "ns"):
        parquet.write_table(pa.table({"sold": pa.array(moments).cast(pa.timestamp(unit))}), "typed.parquet")
        assert predict("net.pkl", "typed.parquet") == expected


def test_a_table_in_another_encoding_is_read_once_it_is_named() -> None:
    levels = Category(name="stra\u00dfe", levels=["\u00e4u\u00dfere", "innere"])
    save(Columns(features=[levels], targets=LONE.targets))
    text = "stra\u00dfe\n\u00e4u\u00dfere\ninnere\n"
    Path("new.csv").write_text(text, encoding="utf-8")
    Path("old.csv").write_text(text, encoding="cp1252")
    expected = predict("net.pkl", "new.csv")
    assert expected.count("\n") == 3  # and nothing unusual
    assert predict("net.pkl", "old.csv", "--encoding", "cp1252") == expected
    message = predict("net.pkl", "old.csv", status=2)
    assert message.startswith("old.csv: cannot be read: it is not UTF-8 text: ")
    assert message.count("\n") == 1
    assert "--encoding" in message
    assert predict("net.pkl", "old.csv", "--encoding", "cp125", status=2) == (
        "--encoding: must be an encoding that Python knows, such as cp1252, got 'cp125'\n"
    )


def test_the_python_interface_predicts_what_the_command_predicts() -> None:
    save()
    Path("table.csv").write_text(TABLE + "green,w,1e39\nwhite,,\n")
    predict("net.pkl", "table.csv", "-o", "predictions.csv", status=1)
    options = arrow_csv.ConvertOptions(strings_can_be_null=True)
    rows = arrow_csv.read_csv("table.csv", convert_options=options)
    expected = arrow_csv.read_csv("predictions.csv").cast(
        pa.schema([(name, pa.float32()) for name in COLUMNS.target_names])
    )
    model = models.load("net.pkl")
    assert model.predict(rows).equals(expected)
    assert model.predict(rows.to_pylist()).equals(expected)


@pytest.mark.parametrize("model", ["net.pkl", "net_params.pkl"])
def test_of_a_category_the_class_is_predicted_and_the_probability_of_each(model: str) -> None:
    net = save(CLASSES)
    Path("table.csv").write_text(TABLE + "green,w,1e39\nwhite,n,\n")
    assert "1 row without a prediction, in row 3" in predict(model, "table.csv", "-o", "predictions.csv", status=1)
    with Path("predictions.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["kind", *(f"kind={level}" for level in CLASSES.classes)]
    assert rows.pop(2) == [""] * 4
    expected = net(torch.tensor([[70.0, 0.0, 1.0], [100.0, 1.0, 0.0], [80.0, 1.0, 0.0]])).detach().numpy()
    assert [row[0] for row in rows] == [CLASSES.classes[index] for index in expected.argmax(axis=1)]
    probabilities = np.array([row[1:] for row in rows], dtype=np.float64)
    assert probabilities == pytest.approx(expected, rel=1e-5)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    options = arrow_csv.ConvertOptions(strings_can_be_null=True)
    predicted = models.load(model).predict(arrow_csv.read_csv("table.csv", convert_options=options))
    assert predicted.column_names == header
    assert predicted["kind"].to_pylist() == [rows[0][0], rows[1][0], None, rows[2][0]]
    assert predicted[header[1]].to_numpy()[[0, 1, 3]] == pytest.approx(probabilities[:, 0], rel=1e-5)


def test_classes_have_no_intervals() -> None:
    save(CLASSES)
    Path("table.csv").write_text(TABLE)
    rule = "is for amounts; the probabilities of classes say how sure a prediction is"
    assert predict("net.pkl", "table.csv", "--interval", "0.9", status=2) == f"--interval: {rule}\n"


@pipes
def test_a_table_or_model_that_changes_while_it_is_read_is_reported() -> None:
    save(LONE)
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
            save(LONE, 6)
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
    save(LONE)
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
        save(Columns(features=[Number(name=trained)], targets=LONE.targets))
        Path("table.csv").write_text(f"{written}\n1\n", encoding="utf-8")
        assert predict("net.pkl", "table.csv").startswith("y\n")


def test_a_quote_that_would_swallow_rows_is_reported() -> None:
    save(LONE)
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
    save(LONE)
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
    for rows, hidden in ((1 << 19, 5), (1 << 22, 5), (1 << 16, 2000)):
        save(Columns(features=[Number(name="a"), Number(name="b")], targets=LONE.targets), hidden)
        values = np.random.default_rng(1).random((2, rows), dtype=np.float32)
        values[0, ::2] = np.inf  # half of the rows have something that is said
        parquet.write_table(pa.table(list(values), ["a", "b"]), "table.parquet")
        lines = """
            import re, runpy, sys
            from pathlib import Path
            sys.argv[1:] = ["net.pkl", "table.parquet", "-o", "predictions.csv", "--allow-gaps"]
            runpy.run_module("stages.predict", run_name="__main__")
            print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        """
        process = start(Path.cwd(), ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}, "python", "-c", dedent(lines))
        most.append(int(process.communicate(timeout=300)[0].splitlines()[-1]) << 10)
        assert Path("predictions.csv").read_bytes().count(b"\n") == rows + 1
    assert max(most) - most[0] < 15 << 20  # bytes; a float32 for each row is 16
