"""Find the quotes that enclose values in the bytes of a CSV file; a quote within a value that has none is text."""

import re

import numpy as np

from stages.tables.cells import NUMBER

LINE_FEED, CARRIAGE_RETURN, QUOTE = b'\n\r"'
LINE_END = re.compile(rb"\r\n|\r|\n")
INSIDE = rb'[^"]*(?:""[^"]*)*'  # a value that is in quotes, without them
CLOSING = re.compile(INSIDE + rb'"(?!")')
NUMBER_IN_BYTES = re.compile(NUMBER.encode())


class MisplacedQuoteError(Exception):
    """A quote that is closed within a value: where in the data it opens and where it is closed."""

    def __init__(self, opened: int, closed: int) -> None:
        self.opened, self.closed = opened, closed


class Quotes:
    """How quotes enclose values in a file with this delimiter, a single character."""

    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter.encode()
        ends = re.escape(self.delimiter) + rb"\r\n"  # what may be before or after a value
        blanks = rb" \t".replace(self.delimiter, b"")
        self._value = re.compile(rb'(?:(?<=[%s])|\A)"(' % ends + INSIDE + b')"')
        self._after = re.compile(rb"[%s]*(?:[%s]|\Z)" % (blanks, ends))
        self._beside = np.zeros(256, bool)  # which bytes may be before an opening or after a closing quote
        self._beside[[*self.delimiter, LINE_FEED, CARRIAGE_RETURN, QUOTE]] = True

    def places(self, data: bytes) -> np.ndarray:
        """Return the positions, int (k,), of the quotes that open and close values, in turn.

        The data begins with a record; if k is odd, its last value is not closed. Two quotes within a value, which stand
        for one, count as closing and opening it. Raises MisplacedQuoteError.
        """
        values = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(values == QUOTE)
        before, after = np.maximum(quotes[::2] - 1, 0), np.minimum(quotes[1::2] + 1, len(values) - 1)
        if self._beside[values[before]].all() and self._beside[values[after]].all():
            return quotes
        places, position = [], 0  # there are quotes that are text, or blanks after a value
        begin_value = self._beside[values[quotes - 1]] & (values[quotes - 1] != QUOTE) | (quotes == 0)
        for opened in quotes[begin_value].tolist():
            if opened < position:  # it is in a value that another quote opened
                continue
            places.append(opened)
            closed = CLOSING.match(data, opened + 1)
            if not closed:
                break
            position = closed.end()
            places.append(position - 1)
            if not self._after.match(data, position):
                raise MisplacedQuoteError(opened, position - 1)
        return np.array(places, np.intp)

    def rows_within(self, record: bytes, columns: int) -> int:
        """Return how many lines a record has if each could be a row, with all columns and a number among them; else 0.

        Then a quote was not closed in the first line, and a stray one is in the last: a value of several lines hardly
        ever looks like that.
        """
        lines = LINE_END.split(self._value.sub(self._plain, record))
        rows = [line.split(self.delimiter) for line in lines]
        numeric = (any(NUMBER_IN_BYTES.match(value.strip()) for value in row) for row in rows)
        return len(rows) if all(len(row) == columns for row in rows) and all(numeric) else 0

    def _plain(self, value: re.Match[bytes]) -> bytes:
        """Return a value without its quotes, and without delimiters in it, unless it has several lines."""
        return value[0] if LINE_END.search(value[0]) else value[1].replace(self.delimiter, b"")
