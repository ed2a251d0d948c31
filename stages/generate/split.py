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
        if sum(each.nbytes for each in waiting) >= PIECE_BYTES:
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
    widths = len(columns.x_names()), len(columns.targets)
    sizes = {part: int((is_test == part).sum()) for part in (False, True)}
    parts = {part: [np.empty((size, width), np.float32) for width in widths] for part, size in sizes.items()}
    done, starts = 0, {False: 0, True: 0}
    while pieces:
        piece = pieces.pop(0)
        for part, (x, y) in parts.items():
            rows = piece[is_test[done : done + len(piece)] == part]
            place = slice(starts[part], starts[part] + len(rows))
            x[place], y[place] = np.split(rows, widths[:1], axis=1)
            starts[part] += len(rows)
        done += len(piece)
    train, test = (Dataset(torch.from_numpy(x), torch.from_numpy(y), columns=columns) for x, y in parts.values())
    return train, test


def check_categories(path: str, train: Dataset, test: Dataset, is_test: np.ndarray) -> None:
    """Raise UserError with a line for each value of a category that occurs only in test rows."""
    numbers, lines = np.flatnonzero(is_test) + 1, []
    for name, place in train.names.slices().items():
        for index, value in enumerate(train.names.categories.get(name, []), place.start):
            if not train.x[:, index].any():
                rows = numbers[test.x[:, index] == 1].tolist()
                only = f"{short(value)} occurs only among the test rows, {in_rows(len(rows), rows)}"
                advice = "remove such rows, or choose another generate.seed"
                lines.append(f"{path}: column {printable(name)}: {only}: {advice}")
    if lines:
        raise UserError("\n".join(lines))
