import csv
import gzip
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from datetime import time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from stages.columns import Category, Columns, Number, Texts
from stages.runtime import files
from stages.runtime.errors import UserError, short
from stages.tables import table_files
from stages.tables.gather import Column
from stages.tables.table import Table
from tests.conftest import PROJECT

CASES = settings(
    max_examples=int(os.environ.get("FUZZ", "200")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
A_TO_B = Columns(features=[Number(name="a")], targets=[Number(name="b")])


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    watched = dict(files._watched)
    yield
    files._watched.clear()
    files._watched.update(watched)


def saved(content: str | bytes | dict[str, Any], name: str | None = None) -> str:
    """Save a table, a mapping of columns as Parquet, and return its path."""
    path = name or ("t.parquet" if isinstance(content, dict) else "t.csv")
    if isinstance(content, dict):
        parquet.write_table(pa.table(content), path)
    else:
        data = content.encode() if isinstance(content, str) else content
        Path(path).write_bytes(gzip.compress(data) if path.endswith(".gz") else data)
    return path


def gather(path: str, **options: Any) -> dict[str, Column]:
    return Table(path).gather(["a"], ["b"], **options)


def read(path: str) -> list[list[float]]:
    """Return the numbers in columns a and b, for training, after comparing them with those that predict reads."""
    columns = gather(path)
    gathered = np.stack([np.asarray(columns[name].cells) for name in "ab"], axis=1)
    batches = [
        [np.asarray(cells[name].cells) for name in "ab"] for _, cells in Table(path).batches(A_TO_B, targets=True)
    ]
    np.testing.assert_array_equal(np.concatenate([np.stack(batch, axis=1) for batch in batches]), gathered)
    return gathered.tolist()


def fault_lines(path: str, **options: Any) -> list[str]:
    """Return what is said about a table, a line a fault, without its path."""
    with pytest.raises(UserError) as caught:
        gather(path, **options)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{path}: ") and line.isprintable() and len(line) < 500 for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def texts_of(column: Column) -> list[str | None]:
    assert isinstance(column.cells, Texts)
    return [column.cells.values[code] if code >= 0 else None for code in column.cells.codes]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("a,b\n1,2\n3,4\n", "t.csv"),
        ("a,b\n1,2\n3,4", "t.csv.gz"),
        ("a\tb\n1\t2\n3\t4\n", "t.tsv"),
        ("a\tb\n1\t2\n3\t4\n", "t.tsv.gz"),
        ("b,other,a\n2,x,1\n4,,3\n", "order.csv"),
        ("\ufeffa,b\r\n1,2\r\n3,4\r\n", "windows.csv"),
        ("a,b\r1,2\r3,4\r", "mac.csv"),
        ("\n\na,b\n1,2\n\n\n3,4\n\n", "blank.csv"),
        (' a , "b"\n 1 ,2 \n3,"4"\n'.replace(' "b"', "b "), "spaces.csv"),
        ('"a","b"\n"1","2"\n"3","4"\n', "quoted.csv"),
        ('a,b,"two\nlines"\n1,2,"x\ny"\n3,4,"x, ""y"""\n', "lines.csv"),
        ("a,b\n+1.0,2e0\n.3E+1,4.\n", "spellings.csv"),
        ("a,b\ntrue,2\n3,4\n", "boolean.csv"),
        ({"a": [1, 3], "b": [2, 4]}, "integers.parquet"),
        ({"b": [2.0, 4.0], "a": ["1", " 3 "]}, "text.parquet"),
        ({"a": [True, True], "b": [2, 4]}, "boolean.parquet"),
        ({"a": [Decimal("1.00"), Decimal("3.00")], "b": pa.array([2, 4], pa.uint8())}, "decimal.parquet"),
        ({"a": pa.array(["1", "3"]).dictionary_encode(), "b": pa.array([2, 4], pa.float16())}, "small.parquet"),
    ],
)
def test_a_table_of_any_kind_is_read(content: str | dict[str, Any], name: str) -> None:
    expected = [[1, 2], [1 if name == "boolean.parquet" else 3, 4]]
    assert read(saved(content, name)) == expected


def test_the_files_of_a_folder_are_read_in_the_order_of_their_names() -> None:
    Path("folder").mkdir()
    for number in (2, 10, 1):
        saved({"a": [number], "b": [0]}, f"folder/{number:02}.parquet")
    saved("", "folder/_SUCCESS")
    assert read("folder") == read("folder/") == [[1, 0], [2, 0], [10, 0]]


def test_targets_are_read_only_where_asked_for() -> None:
    ((first, readings),) = Table(saved("a\n1\n")).batches(A_TO_B, targets=False)
    assert (first, [*readings]) == (1, ["a"])


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n10,1\n9,2\n -5 ,3\n,4\n",
        {"a": [10, 9, -5, None], "b": [1, 2, 3, 4]},
        {"a": pa.array(["10", "9", "-5", None]).dictionary_encode(), "b": [1, 2, 3, 4]},
        {"a": pa.array(["10", "9", "-5", ""], pa.large_string()), "b": [1, 2, 3, 4]},
        {"a": pa.array(["10", "9", "-5", ""], pa.string_view()), "b": [1, 2, 3, 4]},
        {"a": pa.array([10.0, 9.0, -5.0, math.nan]), "b": [1, 2, 3, 4]},
    ],
)
def test_a_column_that_is_listed_is_a_category_whatever_the_kind_of_file(content: Any) -> None:
    path = saved(content)
    assert texts_of(gather(path, categories=["a"])["a"]) == ["10", "9", "-5", None]
    columns = Columns(features=[Category(name="a", levels=["-5", "10"])], targets=[Number(name="b")])
    ((_, readings),) = Table(path).batches(columns, targets=False)
    assert columns.encode({"a": readings["a"].cells}).tolist() == [[0, 1], [0, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("identifier", [0, -7, 10_000_000_000, 2**53, -(2**53)])
def test_an_identifier_is_the_same_text_in_whatever_type_it_is_stored(identifier: int) -> None:
    Path("folder").mkdir()
    columns = [
        [identifier, 2],
        pa.array([identifier, 2.5], pa.float64()),
        pa.array([str(identifier), "2.5"]),
        pa.array([Decimal(f"{identifier}.00"), Decimal("2.50")]),
        pa.array([float(identifier), 2.5]).dictionary_encode(),
    ]
    for number, column in enumerate(columns):
        saved({"a": column, "b": [1, 1]}, f"folder/{number}.parquet")
    assert set(texts_of(gather("folder", categories=["a"])["a"])) == {str(identifier), "2", "2.5"}


def test_small_floats_and_infinities_may_be_texts() -> None:
    path = saved({"a": pa.array([0.1, 5, -0.0, 65504, math.inf], pa.float32()), "b": range(5)})
    assert texts_of(gather(path, categories=["a"])["a"]) == ["0.1", "5", "0", "65504", "inf"]


DECOMPOSED, COMPOSED = "Gro\u0308\u00dfe", "Gr\u00f6\u00dfe"


@pytest.mark.parametrize("written", [DECOMPOSED, COMPOSED, f" {DECOMPOSED} "])
@pytest.mark.parametrize("asked", [DECOMPOSED, COMPOSED])
def test_names_and_categories_are_compared_without_regard_to_how_accents_are_encoded(written: str, asked: str) -> None:
    path = saved(f"{written},b\n{DECOMPOSED},2\n{COMPOSED},3\n")
    assert Table(path).names == [COMPOSED, "b"]
    ((_, readings),) = Table(path).batches(
        Columns(features=[Category(name=COMPOSED, levels=[COMPOSED])], targets=[Number(name="b")]), targets=False
    )
    assert isinstance(cells := readings[COMPOSED].cells, Texts)
    assert cells.values == [COMPOSED]
    Table(path).require([asked])
    both = saved(f"{DECOMPOSED},{COMPOSED},b\n1,2,3\n")
    with pytest.raises(UserError, match=f"^t.csv: has more than one column {asked}: give them different names$"):
        Table(both).require([asked])


def test_rows_are_counted_once_even_if_a_column_is_read_again() -> None:
    counts: list[int] = []
    table = Table(saved("a,b\n1,2\nx,4\ny,4\n"), advance=counts.append)
    assert texts_of(table.gather(["a"], ["b"])["a"]) == ["1", "x", "y"]
    assert counts == [3]


LIKE_DATA = ": its first row looks like data: write a line of column names above it"
NOT_UTF8 = f"cannot be read: {table_files.NOT_UTF8}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "has no column c: it has a, b"),
        ("1,2\n3,4\n", f"has no column a, b: it has 1, 2{LIKE_DATA}"),
        ("Ford,-2.5\n3,4\n", f"has no column a, b: it has Ford, -2.5{LIKE_DATA}"),
        ("a_2,2020\n3,4\n", "has no column a, b: it has a_2, 2020"),
        (",".join(f"c{i}" for i in range(30)) + "\n", "has no column a, b: it has "),
        ("a,b, a\n1,2,3\n", "has more than one column a: give them different names"),
        ("a,b\n1,2\n3\n", "row 2 has 1 value, but the header has 2 names: fix the row"),
        ("a,b\n\n1,2\n1,2\n1,2,\n", "row 3 has 3 values, but the header has 2 names: fix the row"),
        ("a,b\n1,2\n  \n", "row 2 has 1 value, but the header has 2 names: fix the row"),
        ("", "cannot be read: it has no rows"),
        ("\n\n", "cannot be read: it has no rows"),
        ("a,b\n", "has no rows"),
        ({"a": [], "b": []}, "has no rows"),
        (b"a,b\n\xff,1\n", NOT_UTF8),
        (b"a,b\xff\n1,1\n", NOT_UTF8),
        (b"a,b\n" + b"1,1\n" * 100_000 + b"\xff,1\n", NOT_UTF8),
        ("a,b\n1,2\n" + "x" * (3 << 20), "line 3: this row is longer than 1 MiB: shorten it"),
        (
            'a,b\n1,"' + "2,3\n" * (1 << 20),
            "line 2: the quote that opens here is not closed within 1 MiB: close it, or remove it",
        ),
    ],
)
def test_a_table_whose_shape_is_wrong_is_refused_in_one_line(content: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Table(path := saved(content)).gather(["a"], ["c" if "column c:" in message else "b"])
    line = str(caught.value).removeprefix(f"{path}: ")
    assert line.startswith(message) if message.endswith(" ") else line == message


AUTO_MPG = (PROJECT / "data/raw/auto-mpg.csv").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("column", [0, 3, 7])
@pytest.mark.parametrize("rows", [{200: '"{}'}, {200: '"{}', 300: '"{}'}, {200: '"{}', 300: '{}"'}, {392: '"{}'}])
def test_a_quote_that_would_swallow_rows_is_refused_with_the_line_where_it_opens(
    column: int, rows: dict[int, str]
) -> None:
    lines = [f"{line},note" for line in AUTO_MPG]
    for row, pattern in rows.items():
        values = lines[row].split(",")
        values[column] = pattern.format(values[column])
        lines[row] = ",".join(values)
    features = [name for index, name in enumerate(lines[0].split(",")[:3]) if index != column]
    with pytest.raises(UserError, match=f"^t.csv: line {min(rows) + 1}: "):
        Table(saved("\n".join(lines))).gather(features, ["weight"])


def test_each_row_is_read_whether_it_is_in_one_member_of_a_compressed_file_or_in_several() -> None:
    members = [gzip.compress(part) for part in (b"a,b\n1,", b"2\n", b"", b"3,4")]
    Path("t.csv.gz").write_bytes(b"".join(members))
    assert read("t.csv.gz") == [[1, 2], [3, 4]]
    for harmed in (b"".join(members)[:-1], b"".join(members) + b"x", b"".join(members[:3]) + members[3][:5]):
        Path("t.csv.gz").write_bytes(harmed)
        assert fault_lines("t.csv.gz")[0].startswith("cannot be read: ")


def test_each_row_is_read_from_several_row_groups_and_a_footer_with_another_number_is_refused() -> None:
    values = pa.table({"a": range(5), "b": range(5)})
    parquet.write_table(values, "t.parquet", row_group_size=2)
    assert read("t.parquet") == [[i, i] for i in range(5)]
    parquet.write_table(values, "t.parquet")
    content = Path("t.parquet").read_bytes()
    five, six = b"\x16\x0a\x19\x1c", b"\x16\x0c\x19\x1c"  # Thrift's num_rows, then the list of row groups
    assert content.count(five) == 1
    Path("t.parquet").write_bytes(content.replace(five, six))
    assert fault_lines("t.parquet") == ["cannot be read: has 6 rows, but 5 were read: save it again"]


def test_blank_lines_between_the_values_of_a_single_column_may_be_missing_values() -> None:
    def cells(content: str) -> list[float]:
        return np.asarray(Table(saved(content)).gather(["a"], [])["a"].cells).tolist()

    assert cells("a\n1\n2\n\n") == [1, 2]
    with pytest.raises(UserError, match=r"^t.csv: line 3: is blank, and may be a missing value: fill it in, "):
        cells("a\n1\n\n2\n")


@pytest.mark.parametrize("kept", [-1, -9, 200, 10, 0])
@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet"])
def test_a_file_that_was_cut_is_refused_in_one_line(name: str, kept: int) -> None:
    path = saved(
        {"a": range(1000), "b": range(1000)}
        if "parquet" in name
        else "a,b\n" + "".join(f"{i},{i * i}\n" for i in range(999)),
        name,
    )
    Path(path).write_bytes(Path(path).read_bytes()[:kept])
    (line,) = fault_lines(path)
    assert line.startswith("cannot be read: ")


def test_a_file_that_is_missing_or_of_another_kind_says_what_is_accepted() -> None:
    assert fault_lines("none.csv") == ["is missing: put the table there, or run `dvc pull` if DVC tracks it"]
    kinds = "must be a .csv, .tsv, .csv.gz, .tsv.gz or .parquet file, or a folder of .parquet files"
    assert fault_lines(saved(b"", "t.xlsx")) == [kinds]
    Path("folder").mkdir()
    assert fault_lines("folder") == ["must contain .parquet files, got none"]
    saved("a", "folder/a.csv")
    assert fault_lines("folder") == ["must contain only .parquet files, got a.csv"]
    Path("t.csv").mkdir()
    assert fault_lines("t.csv") == ["must contain .parquet files, got none"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names")
def test_a_pipe_is_reported_rather_than_waited_for() -> None:
    os.mkfifo("t.csv")
    assert fault_lines("t.csv") == ["cannot be read: Not a regular file"]
    Path("folder").mkdir()
    saved({"a": [1], "b": [1]}, "folder/1.parquet")
    os.mkfifo("folder/2.parquet")
    with pytest.raises(UserError, match=r"^folder/2.parquet: cannot be read: Not a regular file$"):
        Table("folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names")
def test_a_pipe_in_the_place_of_a_file_that_was_read_is_a_change() -> None:
    Table(saved("a,b\n1,2\n"))
    Path("t.csv").unlink()
    os.mkfifo("t.csv")
    assert "t.csv" in files.changed()


TEXTS = "5%|$5|0x10|1_000|\uff11\uff12|1e|--1|1 2|1d5|x|12:30|None|yes|1.2.3|\u00b2|1,23,456".split("|")


@pytest.mark.parametrize("cell", TEXTS)
def test_what_is_no_plain_number_is_text(cell: str) -> None:
    rows = f'"{cell}",2\n' * 3
    for path in (saved("a,b\n2.25,1\n" + rows), saved({"a": ["2.25", *[cell] * 3], "b": [1, 2, 2, 2]})):
        assert texts_of(gather(path)["a"]) == ["2.25", cell, cell, cell]


@pytest.mark.parametrize(
    "cell", ["", " ", '""', "NA", "nan", "-NaN", "null", " NULL ", "#N/A", "n/a", "?", "-999", "-999.00"]
)
def test_missing_cells_are_missing_in_numbers_texts_and_targets(cell: str) -> None:
    path = saved(f"a,c,b\n1,x,2\n{cell},{cell if cell != '-999.00' else ''},{cell}\n")
    columns = Table(path, missing=["?", "-999"]).gather(["a", "c"], ["b"])
    for name in "ab":
        np.testing.assert_array_equal(columns[name].cells, np.array([1 if name == "a" else 2, np.nan], np.float32))
    assert texts_of(columns["c"]) == ["x", None]
    assert not any(column.other.any() for column in columns.values())


@pytest.mark.parametrize("cells", [[1.0, None], [1.0, math.nan], ["1", None], [True, None], [Decimal(1), None]])
def test_missing_cells_of_parquet_are_missing(cells: list[Any]) -> None:
    column = gather(saved({"a": pa.array(cells, from_pandas=False), "b": [1, 2]}))["a"]
    np.testing.assert_array_equal(column.cells, np.array([1, np.nan], np.float32))


@pytest.mark.parametrize(
    ("cell", "problem", "advice"),
    [
        ("inf", "infinite", "remove such rows"),
        ("-Infinity", "infinite", "remove such rows"),
        ("1e400", "infinite", "remove such rows"),
        ("3.5e38", "too large for float32", "choose a larger unit"),
        ("-1e39", "too large for float32", "choose a larger unit"),
        ("1e-38", "too close to 0 for float32", "choose a smaller unit"),
        ("-1e-300", "too close to 0 for float32", "choose a smaller unit"),
        ("1e-400", "too close to 0 for float32", "choose a smaller unit"),
        ("-0.00000012e-400", "too close to 0 for float32", "choose a smaller unit"),
        ("0." + 400 * "0" + "1", "too close to 0 for float32", "choose a smaller unit"),
    ],
)
def test_a_number_that_float32_cannot_hold_is_refused(cell: str, problem: str, advice: str) -> None:
    for other in ("0", "0.000000e-400", "-.0E10", "true", "False"):
        assert fault_lines(saved(f"a,b\n{other},1\n{cell},1\n")) == [
            f"column a: 1 value is {problem}, such as {short(cell)}, in row 2: {advice}"
        ]
    shown = float(cell)
    if shown == 0:  # no number in Parquet is that small
        return
    (line,) = fault_lines(saved({"a": [0.0, shown], "b": [1, 1]}))
    assert line == f"column a: 1 value is {problem}, such as {shown}, in row 2: {advice}"


@pytest.mark.parametrize("cell", [time(1), timedelta(1), [1], {"x": 1}, b"x"], ids=lambda cell: type(cell).__name__)
def test_cells_that_are_no_numbers_texts_or_dates_cannot_be_read(cell: Any) -> None:
    path = saved({"a": [cell] * 5, "b": [1] * 5})
    column = gather(path)["a"]
    assert (column.kind, column.examples) == ("unreadable", [str(parquet.read_schema(path).field("a").type)])
    assert gather(path, categories=["a"])["a"].kind == "unreadable"
    ((_, readings),) = Table(path).batches(A_TO_B, targets=False)
    assert readings["a"].other.all()
    assert np.isnan(np.asarray(readings["a"].cells)).all()


def test_the_faults_of_all_columns_are_reported_at_once_with_counts_and_the_first_rows() -> None:
    rows = [
        f"{'xy'[i % 2] if i % 10 == 7 else i},03/0{i % 9 + 1}/2020,{'x' if i % 2 else i},1e39"
        for i in range(1, 100_001)
    ]
    path = saved("a,d,y,b\n" + "\n".join(rows))
    assert len([*Table(path)._batches(["a"])]) > 1
    with pytest.raises(UserError) as caught:
        Table(path).gather(["a", "d"], ["y", "b"])
    lines = [
        "column a: 10000 of 100000 values are not numbers, such as 'y', first in rows 7, 17, 27: list them in "
        "generate.missing if they mean a missing value, or list the column in generate.categories",
        "column d: '03/02/2020' may be 2020-02-03 or 2020-03-02: set generate.day_first to true or false",
        "column y: 50000 of 100000 values are not numbers, such as 'x', first in rows 1, 3, 5: list them in "
        "generate.missing if they mean a missing value, or correct them",
        "column b: 100000 values are too large for float32, such as '1e39', first in rows 1, 2, 3: "
        "choose a larger unit",
    ]
    assert str(caught.value).split("\n") == [f"{path}: {line}" for line in lines]


@pytest.mark.parametrize(("cells", "kind"), [(["2020-01-05"] * 4, "dates"), ([""] * 4, "no values")])
def test_a_target_that_is_neither_numbers_nor_text_is_refused(cells: Sequence[str], kind: str) -> None:
    path = saved("a,b\n" + "".join(f"1,{cell}\n" for cell in cells))
    assert fault_lines(path) == [
        f"column b: must be numbers or text to be a target, got {kind}: choose another generate.target"
    ]


def test_text_among_several_targets_is_refused() -> None:
    path = saved("a,b,c\n" + "".join(f"1,{cell},2\n" for cell in "xyxy"))
    with pytest.raises(UserError) as caught:
        Table(path).gather(["a"], ["b", "c"])
    rule = "must be numbers to be one of several targets, got text: make it the only generate.target"
    assert str(caught.value) == f"{path}: column b: {rule}"


def test_a_target_of_numbers_and_texts_may_be_corrected_or_listed() -> None:
    path = saved("a,b\n" + "".join(f"1,{cell}\n" for cell in ("1", "2", "3+", "1")))
    assert fault_lines(path) == [
        "column b: 1 of 4 values are not numbers, such as '3+', in row 3: list them in generate.missing if they mean a "
        "missing value, or list the column in generate.categories"
    ]
    assert texts_of(gather(path, categories=["b"])["b"]) == ["1", "2", "3+", "1"]


def test_a_target_of_an_unreadable_type_is_refused() -> None:
    advice = "choose another generate.target"
    assert fault_lines(saved({"a": [1], "b": [[1]]})) == [
        f"column b: must be numbers or text to be a target, got values of another type: {advice}"
    ]


def test_rows_are_counted_through_the_files_of_a_folder() -> None:
    Path("folder").mkdir()
    saved({"a": [1, 2], "b": [1, 2]}, "folder/1.parquet")
    saved({"a": [1, math.inf], "b": [1, 2]}, "folder/2.parquet")
    (line,) = fault_lines("folder")
    assert "in row 4" in line
    assert [first for first, _ in Table("folder").batches(A_TO_B, targets=True)] == [1, 3]


@pytest.mark.parametrize("first", [1_700_000_000, 0.1])
def test_a_constant_column_is_fine(first: float) -> None:
    assert len(read(saved(f"a,b\n{first},{first}\n" + f"{first},{first}\n" * 9))) == 10


def test_a_column_that_float32_rounds_too_much_to_learn_from_is_refused() -> None:
    path = saved("a,b\n" + "".join(f"{1_700_000_000 + i},{i}\n" for i in range(1000)))
    line = "float32 would round its values by up to 64, too much for their standard deviation of 2.9e+02: "
    assert fault_lines(path) == [f"column a: {line}subtract an offset, such as 1.7e+09, from all values"]
    assert sum(len(readings["a"].other) for _, readings in Table(path).batches(A_TO_B, targets=True)) == 1000
    for most in (127_000, 129_000):  # × √(1/12) is the deviation, whose thousandth is to be at least 64 / 2 / …
        spread = np.linspace(0, most, 1001)
        values = 1_700_000_000 + spread
        error = np.abs(values - values.astype(np.float32)).max()
        path = saved({"a": values, "b": spread})
        refused = error > values.std() / 1000
        assert bool(table_fault(path)) == refused


def table_fault(path: str) -> str:
    try:
        gather(path)
    except UserError as error:
        return str(error)
    return ""


def test_what_changes_while_a_table_is_read_is_noticed() -> None:
    Path("folder").mkdir()
    saved({"a": [1], "b": [1]}, "folder/1.parquet")
    saved("a,b\n1,2\n")
    Table("folder"), Table("t.csv")
    before = set(files.changed())
    saved("a,b\n1,3\n")
    Path("folder/.DS_Store").touch()
    assert set(files.changed()) - before == {"t.csv"}
    saved({"a": [1], "b": [1]}, "folder/2.parquet")
    assert set(files.changed()) - before == {"folder", "t.csv"}


GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}([, '\u00a0\u202f][0-9]{3})+(\.[0-9]*)?(e[+-]?[0-9]+)?")


def number(cell: str) -> float:
    """Return what Python's float() reads in a cell, nan where that is nothing."""
    if cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    plain = re.sub(r"[^0-9.e+-]", "", cell) if GROUPED.fullmatch(cell) else cell
    try:
        return float(plain) if plain.isascii() and "_" not in plain else math.nan
    except ValueError:
        return math.nan


def reference(content: bytes) -> dict[str, list[float]]:
    """Return the numbers of columns a and b as Python's csv module and float() read them."""
    rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    header = [name.strip() for name in rows[0]]
    assert all(len(row) == len(header) for row in rows)
    return {name: [number(row[header.index(name)].strip()) for row in rows[1:]] for name in "ab"}


PIECES = st.sampled_from(
    [
        piece.decode("unicode_escape")
        for piece in rb"""
    1 2.5 -3e2 +1 1. .5 00 1e e1 - inf nan NA true 1e400 1e-400 1_0 0x1 \uff11 1,2 "1,234" '1' % $ # ; a,b\n \u00e9
    , , , , \n \n \n \r\n \r " " "" \x20 \t \0 \\ \ufeff \u2028 \u00a0 \x1c \x85
    """.split()
    ]
)


@CASES
@given(pieces=st.lists(PIECES, max_size=14), cut=st.integers(0, 3))
def test_fuzz_csv_gives_the_numbers_that_python_reads_or_one_line(pieces: list[str], cut: int) -> None:
    content = f"a,b\n1,2\n{''.join(pieces)}".encode()
    path = saved(content[: len(content) - cut])
    try:
        columns = gather(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        assert all(line.isprintable() for line in str(error).split("\n"))
        return
    expected = reference(content[: len(content) - cut])
    for name, column in columns.items():
        if column.kind == "number":
            np.testing.assert_array_equal(column.cells, np.array(expected[name], np.float32))


@CASES
@given(
    edits=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), max_size=4), cut=st.sampled_from([0, 0, 1, 9])
)
@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet"])
def test_fuzz_a_damaged_file_gives_rows_or_one_line(name: str, edits: list[tuple[float, int]], cut: int) -> None:
    path = saved({"a": range(100), "b": range(100)} if "parquet" in name else "a,b\n" + "1,2\n" * 100, name)
    content = bytearray(Path(path).read_bytes())
    for place, value in edits:
        content[int(place * len(content))] = value
    Path(path).write_bytes(content[: len(content) - cut])
    try:
        gather(path)
    except UserError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))


@pytest.mark.parametrize("offset", [2**60, -(2**60), 2**53])
def test_integers_that_float64_cannot_tell_apart_are_refused_rather_than_taken_for_a_constant(offset: int) -> None:
    path = saved("a,b\n" + "".join(f"{offset + index % 2},{index}\n" for index in range(50)))
    (line,) = fault_lines(path)
    assert line.startswith("column a: ")
    assert "subtract an offset, such as " in line


def test_a_compressed_table_without_the_name_of_one_is_named() -> None:
    Path("t.csv").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert fault_lines("t.csv") == ["is compressed by gzip: rename it to t.csv.gz"]
