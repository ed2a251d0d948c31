"""Reasons to distrust the metrics, each in a line."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from stages.evaluate.class_metrics import ClassErrors
from stages.evaluate.metrics import Metrics
from stages.runtime.errors import counted, printable

FEW_ROWS = 30  # test rows; with fewer, another draw of them often changes the error by a third
ROUNDING = 1e-6  # a squared error below this share of the target's variance is that of rounded numbers
LISTED = 3  # columns of x, at most
SMALL = 1e-3  # a weight of standardized columns below this contributes next to nothing
ADVICE = {
    "mean": "{} predicts worse than the mean of the training rows{}: try other values in the section train",
    "least_squares": "{} predicts worse than least squares{}: use least squares, or try other settings",
    "most_frequent": (
        "{} predicts no better than the shares of the classes in the training rows{}: try other values in the section "
        "train"
    ),
    "logistic_regression": (
        "{} predicts worse than logistic regression{}: use logistic regression, or try other settings"
    ),
}


def few_rows(rows: int) -> dict[str, str]:
    """Return the warning that a test set of so many rows is small, by its name; none if it is not."""
    if rows >= FEW_ROWS:
        return {}
    return {"test_rows": f"only {counted(rows, 'test row')}: with other test rows, the error may be quite different"}


def comparisons(targets: Mapping[str, Mapping[str, Metrics]], networks: int = 1) -> dict[str, str]:
    """Return a warning, by name, for each baseline that is better than the network, or the mean of several.

    What is better is said by the mean squared error or, of classes, the log loss.

    targets: the metrics of the network and of the baselines, by target and model.
    """
    warnings = {}
    subject = f"the mean of {networks} networks" if networks > 1 else "the network"
    for baseline, advice in ADVICE.items():
        worse = [name for name, models in targets.items() if baseline in models and _worse(models, baseline)]
        if worse:
            which = f" for {', '.join(map(printable, worse))}" if len(targets) > 1 else ""
            warnings[f"worse_than_{baseline}"] = advice.format(subject, which)
    return warnings


def _worse(models: Mapping[str, Metrics], baseline: str) -> bool:
    network, other = (models[name].get("mse", models[name].get("log_loss")) for name in ("network", baseline))
    assert network is not None
    assert other is not None
    return network > other


def of_classes(errors: ClassErrors, classes: Sequence[str]) -> dict[str, str]:
    """Return the warnings that some classes are never predicted, and that some test rows are of none of them, by name.

    errors: those of the network at the test rows.
    """
    warnings = {}
    *rows, unseen = (int(count) for count in errors.rows)
    never = [place for place, count in enumerate(rows) if count and not errors.predicted[place]]
    if never:
        shown = ", ".join(
            f"{printable(classes[place])} ({counted(rows[place], 'test row')})" for place in never[:LISTED]
        )
        more = f" and {len(never) - LISTED} more" if len(never) > LISTED else ""
        subject = "a class is" if len(never) == 1 else f"{len(never)} classes are"
        warnings["never_predicted"] = f"{subject} never predicted: {shown}{more}: add rows of what is rare"
    if unseen:
        rule = "classes that no training row has count as predicted wrongly"
        warnings["unseen_classes"] = f"{rule}: {counted(unseen, 'test row')}"
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
