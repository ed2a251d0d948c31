import csv
import io
import os
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv

from stages.runtime.errors import UserError
from stages.tables.records import Records

CASES = settings(max_examples=int(os.environ.get("FUZZ", "400")), deadline=None, derandomize=True)
LONGEST = 1 << 20


def scan(content: bytes, piece: int = LONGEST, delimiter: str = ",") -> Records:
    records = Records("t.csv", delimiter, LONGEST)
    for start in range(0, len(content), piece):
        records.feed(content[start : start + piece])
    records.feed(b"")
    return records


def fault(content: str | bytes, delimiter: str = ",") -> str:
    with pytest.raises(UserError) as caught:
        scan(content.encode() if isinstance(content, str) else content, delimiter=delimiter)
    message = str(caught.value)
    assert message.isprintable()
    return message.removeprefix("t.csv: ")


UNCLOSED = "the quote that opens here is never closed: close it, or remove it"
EARLY = "before more text: close it where the value ends, and double the quotes within a value"
JOINED = "a value in quotes begins here and encloses {} lines that look like rows: "
JOINED += "close the quote where its value ends, or remove the line breaks"
BLANK = "is blank, and may be a missing value: fill it in, or remove it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a,b\n1,2\n3,"ok\n5,6\n', f"line 3: {UNCLOSED}"),
        ('a,b\r\n1,2\r\n3,"ok\r\n5,6\r\n', f"line 3: {UNCLOSED}"),
        ('a,b\r1,2\r3,"ok\r5,6\r', f"line 3: {UNCLOSED}"),
        ('\n\n"a\nb",c\n1,2\n3,"ok', f"line 6: {UNCLOSED}"),
        ('a,b\n1,"\n', f"line 2: {UNCLOSED}"),
        ('a,b\n1,"x""\n3,4\n', f"line 2: {UNCLOSED}"),
        ('"a,b\n1,2\n', f"line 1: {UNCLOSED}"),
        ('a,b\n1,"ok\n3,"ok\n', f"line 2: the quote that opens here is closed in line 3 {EARLY}"),
        ('a,b\n1,"ok\n3,""\n4,"fine"\n', f"line 2: the quote that opens here is closed in line 4 {EARLY}"),
        ('a,b\n1,"5"x\n3,4\n', f"line 2: the quote that opens here is closed {EARLY}"),
        ('a,b\n1,"say "hi""\n3,4\n', f"line 2: the quote that opens here is closed {EARLY}"),
        (r"a,b" "\n" r'1,"a \" b"' "\n", f"line 2: the quote that opens here is closed {EARLY}"),
        ('a,b\n1,"ok\n3,4\n5,ok"\n6,7\n', f"line 2: {JOINED.format(3)}"),
        ('a,b\n"ok,1\n3,4\nok",5\n6,7\n', f"line 2: {JOINED.format(3)}"),
        ('a,b\r\n1,"ok\r\n3,ok"\r\n6,7\r\n', f"line 2: {JOINED.format(2)}"),
        ('a,b,c\n1,"x, y","ok\n3,"",ok"\n', f"line 2: {JOINED.format(2)}"),
        ('a,b,c\n1,"x, y","ok\n3,z,ok"\n', f"line 2: {JOINED.format(2)}"),
        ("x\n1\n\n2\n", f"line 3: {BLANK}"),
        ("x\r\n\r\n2\r\n", f"line 2: {BLANK}"),
        ("x\r1\r\r2", f"line 3: {BLANK}"),
        ('"a,b"\n1\n\n\n"2\n3"\n', f"line 3: {BLANK}"),
    ],
)
def test_what_would_lose_or_join_rows_is_refused_with_its_line(content: str, message: str) -> None:
    assert fault(content) == message
    for piece in (4, 5, 7):
        with pytest.raises(UserError):
            scan(content.encode(), piece)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ('a,b\n1,"two\nlines"\n3,"a, b"\n', 3),
        ('a,b\n1,"Main St 5\nSpringfield, IL"\n', 2),
        ('a,b\n1,"say ""hi"""\n3,""\n', 3),
        ('a,b\n1,5" pipe\n2,6"\n3,a"b"c\n', 4),
        ('a,b\n1,ok"\n3,"ok"\n', 3),
        ('a,b\n"1" ,"2"\t\n"3"  ,4', 3),
        ('a,b\n1, "2"\n', 2),
        ("a,b\n\n1,2\n\n\n3,4\n\n", 3),
        ("a,b\r1,2\r3,4", 3),
        ("a,b\r\r\n1,2\r\r\n", 2),
        ("a,b\n1,\0\n2,3\n", 3),
        ("\ufeff\na\n1\n2\n\n\r\n", 3),
        ('\ufeff"a\nb"\r\n1\r\n"2"\r\n', 3),
        ("a\n\x20\n1\n", 3),
        ("a", 1),
        ("", 0),
        ("\n\r\n", 0),
    ],
)
def test_what_stands_in_quotes_or_ends_a_line_is_counted_as_a_reader_does(content: str, count: int) -> None:
    assert [scan(content.encode(), piece).count for piece in (LONGEST, 3, 4, 5)] == [count] * 4


def test_tabs_separate_the_values_of_a_tsv_file() -> None:
    assert fault('a\tb\n1\t"x"\t\n3\t"ok\n', delimiter="\t") == f"line 3: {UNCLOSED}"
    assert fault('a\tb\n1\t"ok\n3\tok"\n', delimiter="\t") == f"line 2: {JOINED.format(2)}"
    assert scan(b'a\tb\n1,"\t2\n"x" \t1\n', delimiter="\t").count == 3


def test_a_row_that_is_too_long_is_refused_before_it_fills_the_memory() -> None:
    within = "is not closed within 1 MiB: close it, or remove it"
    assert fault('a,b\n1,2\n1,"' + "2,3\n" * LONGEST) == f"line 3: the quote that opens here {within}"
    assert fault("a,b\n1,2\n1," + "x" * 3 * LONGEST) == "line 3: this row is longer than 1 MiB: shorten it"


PIECES = st.sampled_from(["1", ",", ",", "\n", "\n", "\r\n", "\r", '"', '"', '""', '"x"', '"a\nb"', " ", "\t", "y"])


@CASES
@given(
    header=st.sampled_from(["a", '"a"', "a,b", "\ufeffa,b", '\n"a",b,c']),
    pieces=st.lists(PIECES, max_size=14),
    piece=st.integers(3, 9),
)
def test_fuzz_the_count_is_that_of_arrow_and_of_python(header: str, pieces: list[str], piece: int) -> None:
    content = f"{header}\n{''.join(pieces)}".encode()
    counts: list[int | None] = []
    for size in (LONGEST, piece):
        try:
            counts.append(scan(content, size).count)
        except UserError as error:
            assert re.match(r"t\.csv: line \d+: ", str(error))
            counts.append(None)
    assert counts[0] == counts[1]
    if counts[0] is None:
        return
    rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    assert counts[0] == len(rows)
    if all(len(row) == len(rows[0]) for row in rows):
        options = arrow_csv.ParseOptions(newlines_in_values=True)
        table = arrow_csv.read_csv(pa.BufferReader(content), parse_options=options)
        assert len(table) == counts[0] - 1


def test_a_long_file_is_counted_across_pieces() -> None:
    rows = "".join(f'{i},"{i} {"x, y" * (i % 7)}{chr(10) * (i % 5 == 0)}"\r\n' for i in range(20_000))
    for piece in (1000, 4099):
        assert scan(f"a,b\r\n{rows}".encode(), piece).count == 20_001
        assert fault(f'a,b\r\n{rows}1,"ok\r\n3,4\r\n') == f"line {20_002 + 4000}: {UNCLOSED}"
