"""What a report shows, as DVC gives it: params, metrics, plots and the DAG, of the workspace and another revision."""

import base64
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from dvc.render.convert import to_json
from dvc.render.match import match_defs_renderers
from dvc.repo import Repo
from dvc.utils.flatten import flatten

from stages.runtime.errors import UserError, one_line, printable
from stages.runtime.spread import evenly_spread
from tools.compare import sides
from tools.compare.table import Comparison, compare
from tools.revisions import WORKSPACE, errors_in_one_line, named

MISSING = object()  # the value of a param or metric that a revision does not have
MOST_PICTURES = 100  # of a sequence, for each revision
SCORES = ("rmse", "mae", "r2")  # shown of the network beside the baselines
SCORES_OF_CLASSES = ("accuracy", "balanced_accuracy", "log_loss", "brier", "auc")
TARGET = ("source", "target")  # the params of generate that say what is predicted


@dataclass(frozen=True)
class Row:
    """A param or a metric: its name, and its values in the other revision and in the workspace.

    Without another revision both are the same. A value may be MISSING.
    """

    name: str
    old: Any
    new: Any

    @property
    def changed(self) -> bool:
        """Return whether the values differ."""
        return bool(self.old != self.new)

    @property
    def change(self) -> Any:
        """Return by how much a number changed, MISSING if it did not or if one of the values is not a number."""
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (self.old, self.new))
        return self.new - self.old if numbers and self.changed else MISSING


@dataclass(frozen=True)
class Scores:
    """The metrics of the network and of the baselines in one revision: for one target, or "" for all, by model."""

    revision: str
    target: str
    models: dict[str, dict[str, float | None]]

    @property
    def names(self) -> list[str]:
        """Return the metrics to show, those of amounts or of classes, as far as any of the models has them."""
        known = {name for metrics in self.models.values() for name in metrics}
        return [name for name in SCORES + SCORES_OF_CLASSES if name in known]

    def value(self, model: str, name: str) -> Any:
        """Return a metric of a model, MISSING if it has none."""
        return self.models[model].get(name, MISSING)


@dataclass(frozen=True)
class Group:
    """The params or metrics of one section, whose name theirs leave out; "" for those outside any section."""

    name: str
    rows: list[Row]

    @property
    def changed(self) -> bool:
        """Return whether any of the values differ."""
        return any(row.changed for row in self.rows)


@dataclass(frozen=True)
class Chart:
    """A chart in Vega-Lite, whose data has a column `rev`."""

    path: str
    title: str
    spec: dict[str, Any]
    left_out: dict[str, str]  # why it does not show a revision, for each that dvc.yaml does not fit

    @property
    def panels(self) -> int:
        """Return how many panels the chart has: one for each value of the column of its facet."""
        field = self.spec.get("facet", {}).get("field")
        return len({row.get(field) for row in self.spec["data"]["values"]})


@dataclass(frozen=True)
class Picture:
    """A picture of each revision that has it, as a data URI."""

    path: str
    images: dict[str, str]

    @property
    def name(self) -> str:
        """Return the name of the file without its ending."""
        return PurePosixPath(self.path).stem


@dataclass(frozen=True)
class Sequence:
    """The pictures of a folder that are named by epochs, in order, and its animation, a GIF named like the folder."""

    path: str
    epochs: list[int]
    pictures: list[Picture]
    animation: Picture | None


@dataclass(frozen=True)
class Stage:
    """A stage: its address in DVC, what it does, whether `dvc repro` would run it, and the stages that it needs."""

    name: str
    desc: str
    stale: bool
    needs: list[str]


@dataclass(frozen=True)
class Contents:
    """All that a report shows. `revisions` are the other one, if any, and the workspace, each with its commit."""

    revisions: dict[str, str]
    stages: list[Stage]
    scores: list[Scores]
    warnings: list[tuple[str, str]]  # a revision, and why its metrics may mislead
    metrics: list[Group]
    params: list[Group]
    comparison: Comparison | None  # of the test errors; None without another revision, or if there is none
    not_compared: str  # why there is none
    same_targets: bool  # whether the metrics of both revisions are of the same targets, so that they can be subtracted
    charts: list[Chart]
    kept_epochs: dict[str, int]  # whose weights were kept, for each revision that has a validation loss
    sequences: list[Sequence]
    pictures: list[Picture]


def read(rev: str | None) -> Contents:
    """Ask DVC for what it shows of the workspace, and of another commit, branch, tag or experiment.

    Raises UserError if there is no such revision, if the pipeline has not run, or if outputs are missing.
    """
    with errors_in_one_line(), Repo() as repo:
        commits = {WORKSPACE: f"on {repo.scm.get_rev()[:7]}"}
        if rev:
            name, commit = named(repo, rev)
            commits = {name: commit[:7] if name == rev else rev} | commits
        metrics, params = (_values(kind.show, list(commits)) for kind in (repo.metrics, repo.params))
        charts, images = _plots(repo, list(commits))
        in_order, pictures = sequences(images)
        stages = _stages(repo)
    for chart in charts:
        add_noise_floors(chart.spec, metrics, params)
    scores = [score for revision in commits for score in scores_of(revision, metrics[revision])]
    warnings = [(name, line) for name in commits for line in _section(metrics[name], "warnings").values()]
    others = {revision: _without_scores(values) for revision, values in metrics.items()}
    comparison, not_compared = _comparison(rev) if rev else (None, "")
    targets = [[_section(params[revision]).get(key) for key in TARGET] for revision in commits]
    return Contents(
        revisions=commits,
        stages=stages,
        scores=scores,
        warnings=warnings,
        metrics=groups(others),
        params=groups(params),
        comparison=comparison,
        not_compared=not_compared,
        same_targets=targets[0] == targets[-1],
        charts=charts,
        kept_epochs=kept_epochs(charts),
        sequences=in_order,
        pictures=pictures,
    )


def _comparison(rev: str) -> tuple[Comparison | None, str]:
    """Return the comparison of the workspace's test errors with those of a revision, or why there is none."""
    try:
        return compare(sides.read([rev, WORKSPACE])), ""
    except UserError as error:
        return None, str(error)


def _refuse(revision: str, failures: dict[str, Exception] | Exception) -> NoReturn:
    """Raise UserError for what DVC could not read of a revision: some files, or all of it."""
    if not isinstance(failures, dict):
        raise UserError(f"{printable(revision)}: cannot be read: {one_line(failures)}")
    damaged = [f"{path}: cannot be read: {one_line(error)}" for path, error in failures.items() if not _missing(error)]
    if damaged:
        raise UserError("\n".join(damaged))
    what = ", ".join(failures)
    if revision == WORKSPACE:
        raise UserError(f"{what}: missing: run `dvc repro`, or `dvc pull` if a remote has the outputs")
    cure = "run `dvc fetch --all-commits` if a remote has it, or check out that revision and run `dvc repro`"
    raise UserError(f"{what}: missing in the cache for {printable(revision)}: {cure}")


def _missing(failure: Exception) -> bool:
    return isinstance(failure, FileNotFoundError) or isinstance(failure.__cause__, FileNotFoundError)


def _values(show: Callable[..., dict[str, Any]], revisions: list[str]) -> dict[str, dict[str, Any]]:
    """Return the params or the metrics that DVC shows of each revision, of all files together."""
    shown = show(revs=revisions, hide_workspace=False)
    values: dict[str, dict[str, Any]] = {}
    for revision in revisions:
        files = shown.get(revision, {})
        if "error" in files:
            _refuse(revision, files["error"])
        failures = {path: file["error"] for path, file in files.get("data", {}).items() if "error" in file}
        if failures:
            _refuse(revision, failures)
        values[revision] = {}
        for file in files.get("data", {}).values():
            values[revision] |= file["data"]
    return values


def groups(values: dict[str, dict[str, Any]]) -> list[Group]:
    """Return the params or the metrics of one revision, or of two, of which the second is the workspace, by section."""
    old, *_, new = [flatten(shown) for shown in (values[next(iter(values))], values[WORKSPACE])]
    rows: dict[str, list[Row]] = {"": []}
    for name in new | old:
        section, _, rest = name.partition(".") if "." in name else ("", "", name)
        rows.setdefault(section, []).append(Row(rest, old.get(name, MISSING), new.get(name, MISSING)))
    return [Group(section, some) for section, some in rows.items() if some]


def scores_of(revision: str, metrics: dict[str, Any]) -> list[Scores]:
    """Return the metrics of the network beside those of the baselines: of all targets, then of each one of several."""
    baselines = metrics.get("baselines")
    if not baselines:
        return []
    scores = SCORES + SCORES_OF_CLASSES
    network = {name: metrics[f"test_{name}"] for name in scores if f"test_{name}" in metrics}
    by_target = {"": {"network": network, **baselines}, **metrics.get("targets", {})}
    return [Scores(revision, target, models) for target, models in by_target.items() if "network" in models]


def _without_scores(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in ("baselines", "targets", "warnings")}


def _section(values: dict[str, Any], name: str = "generate") -> dict[str, Any]:
    """Return a section of params or metrics, empty if there is none."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def add_noise_floors(spec: dict[str, Any], metrics: dict[str, Any], params: dict[str, Any]) -> None:
    """Add a line to the chart of the losses for each noise floor that is in the units of the loss."""
    floors = {
        values["noise_floor"]
        for revision, values in metrics.items()
        if values.get("noise_floor")
        and _section(params[revision], "train").get("loss") == "MSELoss"
        and not _section(params[revision], "network").get("standardize")
    }
    if not floors or not any("loss" in row for row in spec["data"]["values"][:1]):
        return
    curves = {name: spec.pop(name) for name in ("encoding", "layer")}
    words = {"type": "text", "text": "noise floor", "align": "left", "x": 4, "dy": -7, "color": "dimgrey"}
    rule = {"type": "rule", "strokeDash": [3, 3], "color": "dimgrey"}
    data = {"values": [{"noise_floor": floor} for floor in sorted(floors)]}
    y = {"field": "noise_floor", "type": "quantitative"}
    lines = {"data": data, "encoding": {"y": y}, "layer": [{"mark": rule}, {"mark": words}]}
    spec["layer"] = [curves, lines]


def kept_epochs(charts: list[Chart]) -> dict[str, int]:
    """Return, for each revision, the first epoch with the lowest validation loss, as loss.png marks it."""
    losses: dict[str, dict[int, float]] = {}
    for row in (row for chart in charts for row in chart.spec["data"]["values"] if row.get("validation_loss")):
        losses.setdefault(row["rev"], {})[int(row["epoch"])] = float(row["validation_loss"])
    return {revision: min(by_epoch, key=lambda epoch: by_epoch[epoch]) for revision, by_epoch in losses.items()}


def _plots(repo: Repo, revisions: list[str]) -> tuple[list[Chart], list[Picture]]:
    """Return the charts and the pictures that `dvc plots diff` shows."""
    charts, pictures = [], []
    with TemporaryDirectory() as folder:
        plots = repo.plots.show(revs=revisions)
        for renderer, failures, misfits in match_defs_renderers(plots, folder, repo.plots.templates_dir):
            unshown = misfits if len(misfits) == len(revisions) else {}
            for revision, failure in {**unshown, **failures}.items():
                _refuse(revision, failure)
            left_out = {revision: one_line(error) for revision, error in misfits.items()}
            shown = to_json(renderer)
            if renderer.TYPE == "vega":
                specs = [chart["content"] for chart in shown]
                charts += [Chart(renderer.name, _title(spec), spec, left_out) for spec in specs]
            else:
                images = {image["revisions"][0]: _data_uri(Path(image["url"])) for image in shown}
                pictures.append(Picture(renderer.name, {rev: images[rev] for rev in revisions if rev in images}))
    for revision in revisions:
        if not any(revision in picture.images for picture in pictures):  # DVC leaves out a missing folder in silence
            _refuse(revision, {"the pictures": FileNotFoundError()})
    return charts, sorted(pictures, key=lambda picture: picture.path)


def _title(spec: dict[str, Any]) -> str:
    """Take the title out of a chart, since the page shows it as a heading."""
    return str(spec.pop("title", ""))


def _data_uri(path: Path) -> str:
    kind = mimetypes.guess_type(path)[0]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def sequences(pictures: list[Picture]) -> tuple[list[Sequence], list[Picture]]:
    """Sort out the folders whose pictures are named by numbers, with their animations; return them, and the rest."""
    folders: dict[str, dict[int, Picture]] = {}
    for picture in pictures:
        if picture.name.isdecimal():
            folders.setdefault(str(PurePosixPath(picture.path).parent), {})[int(picture.name)] = picture
    rest = {picture.path: picture for picture in pictures if not picture.name.isdecimal()}
    in_order = []
    for path, by_epoch in folders.items():
        epochs = sorted(by_epoch)
        epochs = [epochs[index] for index in evenly_spread(len(epochs), MOST_PICTURES)]
        shown = [by_epoch[epoch] for epoch in epochs]
        in_order.append(Sequence(path, epochs, shown, rest.pop(f"{path}.gif", None)))
    return in_order, list(rest.values())


def _stages(repo: Repo) -> list[Stage]:
    """Return the stages, each after those that it needs."""
    graph = repo.index.graph  # from each stage to those that it needs
    stale = repo.status()
    needs = {node.addressing: [other.addressing for other in graph.successors(node)] for node in graph}
    described = {node.addressing: node.desc or "" for node in graph}
    order = TopologicalSorter(needs).static_order()
    return [Stage(name, described[name], name in stale, sorted(needs[name])) for name in order]
