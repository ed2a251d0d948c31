from pathlib import Path

import pytest

from stages.runtime.errors import UserError
from stages.tables import dialect
from stages.tables.dialect import Dialect, dialect_of


def of(tmp_path: Path, content: str | bytes, encoding: str | None = None, name: str = "t.csv") -> Dialect:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return dialect_of(str(path), encoding)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_the_separator_is_the_one_of_the_header(tmp_path: Path, separator: str, name: str) -> None:
    for content in ("a-b-c\n1-2-3\n", "\n\na-b-c\n", '"x,x;x|x\ty"-b-c\n1-2-3\n', "a-b\n1-2\n"):
        assert of(tmp_path, content.replace("-", separator), name=name).separator == separator


def test_a_sign_that_the_rows_have_less_often_than_the_header_is_part_of_a_name(tmp_path: Path) -> None:
    assert of(tmp_path, "size, in m, roughly;weight\n1;2\n3;4\n").separator == ";"


def test_a_file_of_one_column_has_the_separator_of_its_name(tmp_path: Path) -> None:
    assert of(tmp_path, "a\n1\n").separator == of(tmp_path, "").separator == ","
    assert of(tmp_path, "a\n1\n", name="t.tsv").separator == "\t"


@pytest.mark.parametrize(
    ("cells", "decimal"),
    [
        (["1,5", "2"], ","),
        (["0,123"], ","),
        (["1.234,5"], ","),
        (["1.234.567"], ","),
        (["1,234", "1,5"], ","),
        (["1.5"], "."),
        (["1,234.5"], "."),
        (["1,234,567"], "."),
        (["1,234", "1.5"], "."),
        (["1.234", "2.345"], "."),
        (["1", "x", "a,b", "31.12.2020"], "."),
        (["1,5", "2.5", "3.5"], "."),  # the one that more cells have
        (["1,5", "2,5", "3.5"], ","),
    ],
)
@pytest.mark.parametrize("separator", [";", ","])
def test_the_sign_before_decimals_is_the_one_that_more_cells_show(
    tmp_path: Path, cells: list[str], decimal: str, separator: str
) -> None:
    rows = "".join(f'"{cell}"{separator}1\n' for cell in cells)
    assert of(tmp_path, f"a{separator}b\n{rows}").decimal == decimal


def test_commas_that_may_be_before_decimals_or_thousands_are_asked_about(tmp_path: Path) -> None:
    rule = "'1,234' may be 1.234 or 1234: write numbers with a decimal point and no thousands separators$"
    with pytest.raises(UserError, match=rule):
        of(tmp_path, "a;b\n1,234;2\n5,678;1\n")
    assert of(tmp_path, 'a,b\n"1,234",2\n').decimal == "."


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        ("é,b\n", None, "utf-8"),
        ("\ufeffé,b\n", None, "utf-8-sig"),
        ("\ufeffé,b\n", "cp1252", "utf-8-sig"),  # a mark is certain
        ("é,b\n".encode("utf-16"), None, "utf-16"),
        (b"\xfe\xff" + "é,b\n".encode("utf-16-be"), None, "utf-16"),
        ("é,b\n".encode("cp1252"), "cp1252", "cp1252"),
        ("é,b\n".encode("utf-16-le"), "utf-16-le", "utf-16-le"),
    ],
)
def test_the_encoding_is_that_of_the_mark_or_the_given_one_or_utf_8(
    tmp_path: Path, content: str | bytes, encoding: str | None, expected: str
) -> None:
    assert of(tmp_path, content, encoding).encoding == expected


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_named(tmp_path: Path, encoding: str) -> None:
    rule = f"is not UTF-8 text, but probably UTF-16: set generate.encoding to {encoding}$"
    with pytest.raises(UserError, match=rule):
        of(tmp_path, "a,b\n1,2\n".encode(encoding))


def test_a_character_at_the_end_of_the_sample_may_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in range(8, 24):
        monkeypatch.setattr(dialect, "SAMPLE_BYTES", size)
        assert of(tmp_path, "é;é\n" + "1,5;é\n" * 9).separator == ";"
