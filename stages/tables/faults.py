"""Collect what is wrong with a table, to report it together."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.columns.cells import Problems
from stages.runtime.errors import SHOWN_ROWS, UserError, counted, in_rows, printable, short

ADVICE = {
    "infinite": "remove such rows",
    "too large for float32": "choose a larger unit",
    "too close to 0 for float32": "choose a smaller unit",
}


@dataclass
class _Fault:
    count: int
    rows: list[int]  # the first of them, counted from 1
    example: object  # the value in the first of them


class Faults:
    """What is wrong with a table."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.of_columns: dict[str, str] = {}
        self.of_cells: dict[tuple[str, str], _Fault] = {}  # by column and problem

    def add_line(self, name: str, fault: str) -> None:
        """Note a fault of a whole column; ignore an empty text, and a column that has a fault already."""
        if fault and not any(name == column for column, _ in self.of_cells):
            self.of_columns.setdefault(name, fault)

    def add(self, name: str, column: pa.Array, problems: Problems, first: int) -> None:
        """Note the problems of a column, or of a part of it; `first` is the number of its first row."""
        for problem, mask in problems.items():
            rows = np.flatnonzero(mask)
            if len(rows):
                fault = self.of_cells.setdefault((name, problem), _Fault(0, [], column[int(rows[0])].as_py()))
                fault.count += len(rows)
                fault.rows = [*fault.rows, *(first + rows[:SHOWN_ROWS]).tolist()][:SHOWN_ROWS]

    def raise_any(self) -> None:
        """Raise UserError with a line for each column and problem, if there are any."""
        lines = [f"column {printable(name)}: {fault}" for name, fault in self.of_columns.items()]
        for (name, problem), fault in self.of_cells.items():
            are = f"{counted(fault.count, 'value')} {'is' if fault.count == 1 else 'are'} {problem}"
            where = in_rows(fault.count, fault.rows)
            advice = ADVICE[problem]
            lines.append(f"column {printable(name)}: {are}, such as {short(fault.example)}, {where}: {advice}")
        if lines:
            raise UserError("\n".join(f"{self.path}: {line}" for line in lines))
