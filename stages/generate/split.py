"""Split the rows of a table into those to train on and those to test on."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from stages.columns import Columns
from stages.dataset import Dataset
from stages.runtime.errors import UserError, in_rows, printable, short

PIECE_BYTES = 1 << 25  # blocks of this size glibc always returns to the system when they are freed


def in_pieces(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the rows of all batches in larger pieces, whose memory goes back to the system once they are freed."""
    waiting: list[np.ndarray] = []
    for rows in batches:
        waiting.append(rows)
        if sum(rows.nbytes for rows in waiting) >= PIECE_BYTES:
            yield np.concatenate(waiting)
            waiting.clear()
    if waiting:
        yield np.concatenate(waiting)


def choose_test_rows(path: str, n: int, fraction: float, seed: int) -> np.ndarray:
    """Return which of n rows to test on, bool (n,): round(n · fraction) of them, drawn at random.

    Raises UserError if fewer than 2 rows are left to train on, or none to test on.
    """
    tests = round(n * fraction)
    if tests < 1 or n - tests < 2:
        rule = "must leave at least 2 rows to train on and 1 to test on"
        raise UserError(f"{path}: generate.test_fraction {rule}, got {n - tests} and {tests}")
    is_test = np.zeros(n, bool)
    is_test[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:tests].numpy()] = True
    return is_test


def train_and_test(pieces: list[np.ndarray], is_test: np.ndarray, columns: Columns) -> tuple[Dataset, Dataset]:
    """Return the rows to train on and those to test on, in their order; is_test: bool (n,).

    The pieces, float32 (k, n_feature + n_output), are removed from the list one by one, so that their memory is freed
    while the points are filled in.
    """
    n_feature, n_output = len(columns.x_names()), len(columns.targets)
    tests = int(is_test.sum())
    train, test = (_Points(n, n_feature, n_output) for n in (len(is_test) - tests, tests))
    first = 0
    while pieces:
        piece = pieces.pop(0)
        in_test = is_test[first : first + len(piece)]
        train.append(piece[~in_test])
        test.append(piece[in_test])
        first += len(piece)
    return train.dataset(columns), test.dataset(columns)


class _Points:
    """Points that are filled in a piece at a time: x, (n, n_feature), and y, (n, n_output)."""

    def __init__(self, n: int, n_feature: int, n_output: int) -> None:
        self.x, self.y = np.empty((n, n_feature), np.float32), np.empty((n, n_output), np.float32)
        self.filled = 0

    def append(self, rows: np.ndarray) -> None:
        """Fill in more rows, (k, n_feature + n_output)."""
        place = slice(self.filled, self.filled + len(rows))
        self.x[place], self.y[place] = np.split(rows, [self.x.shape[1]], axis=1)
        self.filled += len(rows)

    def dataset(self, columns: Columns) -> Dataset:
        """Return the points, whose memory it shares."""
        return Dataset(torch.from_numpy(self.x), torch.from_numpy(self.y), columns=columns)


def refuse_untrained_values(path: str, train: Dataset, test: Dataset, is_test: np.ndarray) -> None:
    """Raise UserError with a line for each value of a category that occurs only in test rows."""
    test_rows, lines = np.flatnonzero(is_test) + 1, []
    for name, place in train.names.slices().items():
        for index, value in enumerate(train.names.categories.get(name, []), place.start):
            if not train.x[:, index].any():
                rows = test_rows[test.x[:, index].numpy() == 1].tolist()
                only = f"{short(value)} occurs only among the test rows, {in_rows(len(rows), rows)}"
                advice = "remove such rows, or choose another generate.seed"
                lines.append(f"{path}: column {printable(name)}: {only}: {advice}")
    if lines:
        raise UserError("\n".join(lines))
