"""Reasons to distrust the metrics, each in a line."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from stages.evaluate.metrics import Metrics
from stages.runtime.errors import counted, printable

FEW_ROWS = 30  # test rows; with fewer, another draw of them often changes the error by a third
ROUNDING = 1e-6  # a squared error below this share of the target's variance is that of rounded numbers
LISTED = 3  # columns of x, at most
SMALL = 1e-3  # a weight of standardized columns below this contributes next to nothing
ADVICE = {
    "mean": "{} predicts worse than the mean of the training rows{}: try other values in the section train",
    "least_squares": "{} predicts worse than least squares{}: use least squares, or try other settings",
}


def few_rows(rows: int) -> dict[str, str]:
    """Return the warning that a test set of so many rows is small, by its name; none if it is not."""
    if rows >= FEW_ROWS:
        return {}
    return {"test_rows": f"only {counted(rows, 'test row')}: with other test rows, the error may be quite different"}


def comparisons(targets: Mapping[str, Mapping[str, Metrics]], networks: int = 1) -> dict[str, str]:
    """Return a warning, by name, for each baseline that is better than the network, or the mean of several.

    targets: the metrics of the network and of the baselines, by target and model.
    """
    warnings = {}
    subject = f"the mean of {networks} networks" if networks > 1 else "the network"
    for baseline, advice in ADVICE.items():
        worse = [name for name, models in targets.items() if models["network"]["mse"] > models[baseline]["mse"]]
        if worse:
            which = f" for {', '.join(map(printable, worse))}" if len(targets) > 1 else ""
            warnings[f"worse_than_{baseline}"] = advice.format(subject, which)
    return warnings


def leaks(targets: Mapping[str, Mapping[str, Metrics]], weights: Tensor, names: Sequence[str]) -> dict[str, str]:
    """Return a warning that least squares has no error at the test points but that of rounding, by name; else none.

    weights: those of standardized columns, (n_feature, n_output); names: those of the columns of x, (n_feature,).
    """
    for index, (target, models) in enumerate(targets.items()):
        r2 = models["least_squares"]["r2"]
        if r2 is not None and 1 - r2 < ROUNDING:
            largest = weights[:, index].abs().argsort(descending=True)[:LISTED].tolist()
            sources = ", ".join(printable(names[column]) for column in largest if weights[column, index].abs() > SMALL)
            cure = f"unless they are known before {printable(target)}, leave them out of generate.features"
            return {"leak": f"least squares predicts {printable(target)} almost exactly from {sources}: {cure}"}
    return {}
