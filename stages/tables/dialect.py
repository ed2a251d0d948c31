"""Recognise how a CSV file is written: its encoding, the separator of its values, and the sign before decimals."""

import codecs
import csv
import gzip
import re
from pathlib import Path
from typing import NamedTuple

from stages.runtime.errors import UserError, short

SAMPLE_BYTES = 1 << 18  # of the beginning
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
COMMA = re.compile(r"[+-]?[0-9]{1,3}(?:[.]?[0-9]{3})*,[0-9]+")  # read as a decimal comma; may also separate thousands
COMMA_BEFORE_THREE = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # may be either
COMMA_OF_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*|,[0-9]{3})")  # cannot be decimal


class Dialect(NamedTuple):
    """How a CSV file is written."""

    encoding: str  # a codec of Python
    separator: str  # one of , ; | and the tab
    decimal: str  # . or ,


def dialect_of(path: str, encoding: str | None = None) -> Dialect:
    """Return how a CSV file is written, by its beginning; `encoding` is what its text is in, if it has no mark.

    The separator is the sign that the header has most often. Decimals may follow a comma only where that is not the
    separator.
    Raises UserError if the file is not text in this encoding, or if it cannot be told whether `1,234` is a fraction.
    """
    with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    if sample.startswith(b"\x1f\x8b"):
        raise UserError(f"{path}: is compressed by gzip: name it {path}.gz")
    codec = next((codec for mark, codec in MARKS.items() if sample.startswith(mark)), encoding or "utf-8")
    whole = len(sample) < SAMPLE_BYTES
    text = codecs.getincrementaldecoder(codec)().decode(sample, final=whole)
    header, *lines = text.splitlines() or [""]
    if not whole:
        del lines[-1:]  # it may be cut off
    separator = _separator(header, default="\t" if ".tsv" in path else ",")
    return Dialect(codec, separator, "." if separator == "," else _decimal(path, lines, separator))


def _separator(header: str, default: str) -> str:
    outside_quotes = re.sub(r'"[^"]*"', "", header)
    most = max(",;\t|", key=lambda sign: (outside_quotes.count(sign), sign == default))
    return most if most in outside_quotes else default


def _decimal(path: str, lines: list[str], separator: str) -> str:
    cells = [cell.strip() for row in csv.reader(lines, delimiter=separator) for cell in row if "," in cell]
    with_comma = [cell for cell in cells if COMMA.fullmatch(cell)]
    if any(COMMA_OF_THOUSANDS.fullmatch(cell) for cell in cells) or not with_comma:
        return "."
    if all(COMMA_BEFORE_THREE.fullmatch(cell) for cell in with_comma):
        example = with_comma[0]
        fraction, whole = example.replace(",", "."), example.replace(",", "")
        advice = "write numbers with a decimal point and without signs between digits"
        raise UserError(f"{path}: {short(example)} may be {fraction} or {whole}: {advice}")
    return ","
