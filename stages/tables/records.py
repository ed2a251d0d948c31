"""Count the records of a CSV file from its bytes, and refuse quotes and blank lines that would lose or join rows.

Arrow reads a quote that is not closed, or is closed in another row, as one long value, without a word about the rows in
between. This scan finds such quotes; and its count, made without Arrow, must equal the number of rows that Arrow
returns.
"""

from typing import NoReturn

import numpy as np

from stages.runtime.errors import UserError
from stages.tables.quotes import CARRIAGE_RETURN, LINE_FEED, MisplacedQuoteError, Quotes

MARK = b"\xef\xbb\xbf"  # of UTF-8, at the beginning of a file


class Records:
    """The records of a CSV file, which is fed a piece at a time.

    A record ends with the file, or with a line feed, a carriage return or both, unless these are in quotes. Blank lines
    are no records. What is kept of the file is the record that has begun, which may be up to `longest` bytes long.
    """

    def __init__(self, path: str, delimiter: str, longest: int) -> None:
        self.count = 0  # of those that have ended, the header among them
        self.columns = 0  # in the header; 0 until it has ended
        self._path, self._quotes, self._longest = path, Quotes(delimiter), longest
        self._rest: bytes | None = None  # the record that has begun; None before the first piece
        self._line = 1  # the number of its first line
        self._blank_line: int | None = None  # the first one below the header

    def feed(self, piece: bytes) -> None:
        """Count the records that end in the next piece of the file; an empty piece is its end.

        Raises UserError, with the number of the line, for a quote that is never closed, is closed within a value, or
        encloses several rows; for a record that is too long; and for a blank line between the rows of a single column,
        which may be a missing value.
        """
        data = piece.removeprefix(MARK) if self._rest is None else self._rest + piece
        values = np.frombuffer(data, np.uint8)
        breaks = np.flatnonzero((values == LINE_FEED) | (values == CARRIAGE_RETURN))
        quotes = self._quotes_in(data)
        quoted = np.searchsorted(quotes, breaks) % 2 == 1 if len(quotes) else np.zeros(len(breaks), bool)
        if piece:
            end = _end_of_lines(values, breaks[~quoted])
            ends = breaks[~quoted & (breaks < end)]
            self._refuse_long(data, end, quotes)
        else:
            if len(quotes) % 2:
                self._refuse(data, quotes[-1], "the quote that opens here is never closed: close it, or remove it")
            end = len(data)
            ends = np.append(breaks[~quoted], end)
        starts = np.append(0, ends[:-1] + 1)
        records = np.flatnonzero(ends > starts)
        if len(records) and not self.columns:
            delimiters = np.flatnonzero(values[: ends[records[0]]] == ord(self._quotes.delimiter))
            self.columns = 1 + int((np.searchsorted(quotes, delimiters) % 2 == 0).sum())
        if quoted.any():
            self._refuse_joined_rows(data, starts, ends, breaks[quoted])
        if self.columns == 1:
            self._refuse_blank_lines(data, starts, ends, records)
        self.count += len(records)
        pairs = data.count(b"\r\n", 0, end) if b"\r" in data else 0
        self._line += int(np.searchsorted(breaks, end)) - pairs
        self._rest = data[end:]

    def _quotes_in(self, data: bytes) -> np.ndarray:
        try:
            return self._quotes.places(data)
        except MisplacedQuoteError as quote:
            opened, closed = self._line_of(data, quote.opened), self._line_of(data, quote.closed)
            where = "" if opened == closed else f" in line {closed}"
            advice = "close it where the value ends, and double the quotes within a value"
            self._refuse(data, quote.opened, f"the quote that opens here is closed{where} before more text: {advice}")

    def _refuse_joined_rows(self, data: bytes, starts: np.ndarray, ends: np.ndarray, breaks: np.ndarray) -> None:
        """Raise UserError if a record with some of these line breaks, all in quotes, consists of lines like rows."""
        delimiters = np.flatnonzero(np.frombuffer(data, np.uint8) == ord(self._quotes.delimiter))
        records, counts = np.unique(np.searchsorted(ends, breaks), return_counts=True)
        records, counts = records[records < len(ends)], counts[records < len(ends)]
        held = np.searchsorted(delimiters, ends[records]) - np.searchsorted(delimiters, starts[records])
        least_lines = (counts + 1) // 2 + 1  # a line break may be two bytes
        for record in records[held >= least_lines * (self.columns - 1)]:  # few, since what follows takes longer
            if lines := self._quotes.rows_within(data[starts[record] : ends[record]], self.columns):
                advice = "close the quote where its value ends, or remove the line breaks"
                what = f"a value in quotes begins here and encloses {lines} lines that look like rows"
                self._refuse(data, starts[record], f"{what}: {advice}")

    def _refuse_long(self, data: bytes, end: int, quotes: np.ndarray) -> None:
        """Raise UserError if the record that has begun at `end` is too long to be read."""
        if len(data) - end >= self._longest:
            limit = f"{self._longest >> 20} MiB"
            if len(quotes) % 2:
                unclosed = f"the quote that opens here is not closed within {limit}: close it, or remove it"
                self._refuse(data, quotes[-1], unclosed)
            self._refuse(data, end, f"this row is longer than {limit}: shorten it")

    def _refuse_blank_lines(self, data: bytes, starts: np.ndarray, ends: np.ndarray, records: np.ndarray) -> None:
        """Raise UserError if a record is below a blank line that is below the header; `records` are those not blank."""
        values = np.frombuffer(data + b"\n", np.uint8)
        blank = (ends == starts) & (ends < len(data))
        blank[1:] &= (values[ends[:-1]] != CARRIAGE_RETURN) | (values[ends[1:]] != LINE_FEED)  # else it is one line end
        header = -1 if self.count else records[0] if len(records) else len(ends)
        first = np.flatnonzero(blank & (np.arange(len(ends)) > header))[:1]
        if self._blank_line is None and len(first):
            self._blank_line = self._line_of(data, starts[first[0]])
            records = records[records > first[0]]
        if self._blank_line is not None and len(records):
            raise UserError(
                f"{self._path}: line {self._blank_line}: is blank, and may be a missing value: fill it in, or remove it"
            )

    def _line_of(self, data: bytes, position: int) -> int:
        """Return the number of the line that has the byte at this position of the data."""
        pairs = data.count(b"\r\n", 0, position)
        return self._line + data.count(b"\n", 0, position) + data.count(b"\r", 0, position) - pairs

    def _refuse(self, data: bytes, position: int, problem: str) -> NoReturn:
        raise UserError(f"{self._path}: line {self._line_of(data, position)}: {problem}")


def _end_of_lines(values: np.ndarray, ends: np.ndarray) -> int:
    """Return where the last complete line ends; a carriage return at the very end may be half of a line end."""
    complete = ends[ends < len(values) - 1]
    if not len(complete):
        return 0
    last = int(complete[-1])
    return last + (2 if (values[last], values[last + 1]) == (CARRIAGE_RETURN, LINE_FEED) else 1)
