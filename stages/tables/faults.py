"""What is wrong with the cells of a table, collected to be reported together."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.runtime.errors import SHOWN_ROWS, UserError, counted, in_rows, printable, short
from stages.tables.cells import Problems

ADVICE = {
    "infinite": "remove such rows",
    "too large for float32": "choose a larger unit",
    "too close to 0 for float32": "choose a smaller unit",
}


@dataclass
class _Fault:
    count: int
    rows: list[int]  # the first of them, counted from 1
    example: str  # `, such as 'x'` for the value in the first of them, or nothing


class Faults:
    """What is wrong with a table, collected to be reported together."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: list[str] = []  # about whole columns
        self.found: dict[tuple[str, str], _Fault] = {}  # about cells, by column and problem

    def __bool__(self) -> bool:
        return bool(self.lines or self.found)

    def add(self, name: str, column: pa.Array, problems: Problems, first: int) -> None:
        """Note the problems of a column, or of a part of it; `first` is the number of its first row."""
        for problem, rows in ((problem, np.flatnonzero(mask)) for problem, mask in problems.items()):
            if len(rows):
                named = problem in ADVICE and problem != "missing"
                example = f", such as {short(column[int(rows[0])].as_py())}" if named else ""
                fault = self.found.setdefault((name, problem), _Fault(0, [], example))
                fault.count += len(rows)
                fault.rows = [*fault.rows, *(first + rows[:SHOWN_ROWS]).tolist()][:SHOWN_ROWS]

    def check(self) -> None:
        """Raise UserError with a line for each column and problem, if there are any."""
        lines = list(self.lines)
        for (name, problem), fault in self.found.items():
            are = f"{counted(fault.count, 'value')} {'is' if fault.count == 1 else 'are'} {problem}{fault.example}"
            advice = ADVICE.get(problem, OTHER_TYPES)
            lines.append(f"column {printable(name)}: {are}, {in_rows(fault.count, fault.rows)}: {advice}")
        if lines:
            raise UserError("\n".join(f"{self.path}: {line}" for line in lines))
