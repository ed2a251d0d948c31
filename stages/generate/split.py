"""Split the rows of a table into those to train on and those to test on."""

import numpy as np
import torch

from stages.runtime.errors import UserError


def choose_test_rows(path: str, n: int, fraction: float, seed: int, classes: np.ndarray | None = None) -> np.ndarray:
    """Return which of n rows to test on, bool (n,): round(n · fraction) of them, drawn at random.

    If there are classes, int (n,), each has its share of the test rows, to within one row; the only row of a class is
    trained on. Raises UserError as `number_of_tests` does.
    """
    tests = number_of_tests(path, n, fraction)
    is_test = np.zeros(n, bool)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    if classes is None:
        is_test[order[:tests]] = True
        return is_test
    order = order[np.bincount(classes)[classes[order]] > 1]
    order = order[np.argsort(classes[order], kind="stable")]
    if len(order) < tests:
        raise UserError(f"{path}: has too few rows to test on: most classes have a single one")
    is_test[order[np.arange(tests) * len(order) // tests]] = True  # evenly spread over the rows sorted by class
    return is_test


def latest_rows(path: str, moments: np.ndarray, fraction: float) -> np.ndarray:
    """Return which of n rows to test on, bool (n,): the round(n · fraction) latest, by their dates, float64 (n,).

    Rows without a date, nan, are the earliest. Raises UserError as `number_of_tests` does.
    """
    n = len(moments)
    order = np.argsort(np.where(np.isnan(moments), -np.inf, moments), kind="stable")
    is_test = np.zeros(n, bool)
    is_test[order[n - number_of_tests(path, n, fraction) :]] = True
    return is_test


def number_of_tests(path: str, n: int, fraction: float) -> int:
    """Return round(n · fraction). Raises UserError if that leaves fewer than 2 of n rows to train on, or tests none."""
    tests = round(n * fraction)
    if tests < 1 or n - tests < 2:
        rule = "must leave at least 2 rows to train on and 1 to test on"
        raise UserError(f"{path}: generate.test_fraction {rule}, got {n - tests} and {tests}")
    return tests
