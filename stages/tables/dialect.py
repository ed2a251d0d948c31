"""Recognise how a CSV file is written: its encoding, the separator of its values, and the decimal mark."""

import codecs
import re
from typing import NamedTuple

import pyarrow as pa

from stages.runtime.errors import UserError, short

SAMPLE_BYTES = 1 << 18  # of the beginning
SAMPLE_LINES = 20
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# In both patterns {0} is the decimal mark and {1} the thousands separator; in EITHER, {0} may be either of them.
EITHER = r"[+-]?[1-9][0-9]{{0,2}}{0}[0-9]{{3}}"
DECIMAL = r"[+-]?[0-9]*{0}[0-9]+|[+-]?[1-9][0-9]{{0,2}}(?:{1}[0-9]{{3}})+(?:{0}[0-9]+|{1}[0-9]{{3}})"


class Dialect(NamedTuple):
    """How a CSV file is written."""

    encoding: str  # a codec of Python
    separator: str  # one of , ; | and the tab
    decimal: str  # . or ,


def dialect_of(path: str, encoding: str | None = None) -> Dialect:
    """Return how a CSV file is written, by its beginning; `encoding` is that of a file without a byte order mark.

    The separator is the character that the header has as often as most of the first rows. The decimal mark is the one
    that more cells show, such as `1,5` or `1.234.567`.
    Raises UserError if the file is not text in this encoding, or if `1,234` may be a fraction or a whole number.
    """
    with pa.input_stream(path, compression="gzip" if path.endswith(".gz") else None) as stream:
        sample = stream.read(SAMPLE_BYTES)
    if sample.startswith(b"\x1f\x8b"):
        raise UserError(f"{path}: is compressed by gzip: rename it to {path}.gz")
    codec = next((codec for mark, codec in MARKS.items() if sample.startswith(mark)), encoding or "utf-8")
    if codec == "utf-8" and sample.count(b"\0") > len(sample) / 4:
        codec = "utf-16-le" if sample[1:2] == b"\0" else "utf-16-be"
        raise UserError(f"{path}: is not UTF-8 text, but probably UTF-16: set generate.encoding to {codec}")
    whole = len(sample) < SAMPLE_BYTES
    text = codecs.getincrementaldecoder(codec)().decode(sample, final=whole)
    lines = [line for line in text.splitlines() if line.strip()]
    if not whole:
        del lines[-1:]  # it may be cut off
    separator = _separator(lines[:SAMPLE_LINES], default="\t" if ".tsv" in path else ",")
    return Dialect(codec, separator, _decimal(path, lines[1:], separator))


def _separator(lines: list[str], default: str) -> str:
    header, *rows = [re.sub(r'"[^"]*"', "", line) for line in lines] or [""]
    rows_like_header = {sign: sum(row.count(sign) == header.count(sign) for row in rows) for sign in ",;\t|"}
    signs = [sign for sign in rows_like_header if sign in header]
    return max(signs, key=lambda sign: (rows_like_header[sign], header.count(sign), sign == default), default=default)


def _decimal(path: str, lines: list[str], separator: str) -> str:
    value = re.compile(rf'"[^"]*"|[^"{separator}]+')
    cells = [cell.strip(' "') for line in lines for cell in value.findall(line) if {",", "."} & {*cell}]
    commas = [cell for cell in cells if re.fullmatch(DECIMAL.format(",", r"\."), cell)]
    either = [cell for cell in commas if re.fullmatch(EITHER.format(","), cell)]
    points = [cell for cell in cells if re.fullmatch(DECIMAL.format(r"\.", ","), cell)]
    points = [cell for cell in points if not re.fullmatch(EITHER.format(r"\."), cell)]
    if len(commas) - len(either) > len(points):
        return ","
    if either and not points and separator != ",":  # numbers with commas in quotes between commas are mostly English
        fraction, whole = either[0].replace(",", "."), either[0].replace(",", "")
        advice = "write numbers with a decimal point and no thousands separators"
        raise UserError(f"{path}: {short(either[0])} may be {fraction} or {whole}: {advice}")
    return "."
