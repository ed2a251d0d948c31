"""What a report shows, as DVC gives it: params, metrics, plots and the DAG, of the workspace and another revision."""

import base64
import io
import mimetypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from dvc.exceptions import DvcException
from dvc.render.convert import to_json
from dvc.render.match import match_defs_renderers
from dvc.repo import Repo
from dvc.scm import RevError, resolve_rev
from dvc.utils.flatten import flatten

from stages.runtime.errors import UserError, one_line, printable
from stages.runtime.spread import evenly_spread
from tools.report.dag import Drawing, lay_out

WORKSPACE = "workspace"  # what DVC calls the files as they are now
MISSING = object()  # the value of a param or metric that a revision does not have
MOST_PICTURES = 100  # of a sequence, for each revision


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
class Group:
    """The params or metrics of one section, whose name theirs leave out; "" for those outside any section."""

    name: str
    rows: list[Row]


@dataclass(frozen=True)
class Chart:
    """A chart in Vega-Lite, whose data has a column `rev`."""

    path: str
    title: str
    spec: dict[str, Any]

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
    """A stage: its address in DVC, what it does, and whether `dvc repro` would run it."""

    name: str
    desc: str
    stale: bool


@dataclass(frozen=True)
class Contents:
    """All that a report shows. `revisions` are the other one, if any, and the workspace, each with its commit."""

    revisions: dict[str, str]
    stages: list[Stage]
    dag: Drawing
    metrics: list[Group]
    params: list[Group]
    charts: list[Chart]
    sequences: list[Sequence]
    pictures: list[Picture]


def read(rev: str | None) -> Contents:
    """Ask DVC for what it shows of the workspace, and of another commit, branch, tag or experiment.

    Raises UserError if there is no such revision, if the pipeline has not run, or if outputs are missing.
    """
    with _told_in_one_line(), Repo() as repo:
        commits = {WORKSPACE: repo.scm.get_rev()[:7]}
        if rev:
            commits = {rev: _commit(repo, rev)} | commits
        metrics, params = (_groups(kind.show, list(commits)) for kind in (repo.metrics, repo.params))
        charts, images = _plots(repo, list(commits))
        in_order, pictures = sequences(images)
        stages, dag = _stages(repo)
    return Contents(commits, stages, dag, metrics, params, charts, in_order, pictures)


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """Keep what DVC prints to itself, and turn its errors into UserError."""
    try:
        with redirect_stderr(io.StringIO()):
            yield
    except DvcException as error:
        raise UserError(one_line(error)) from error


def _commit(repo: Repo, rev: str) -> str:
    try:
        return resolve_rev(repo.scm, rev)[:7]
    except RevError as error:
        where = "`git log` lists commits, `dvc exp list` experiments"
        raise UserError(f"REV: must be a commit, branch, tag or experiment, got {printable(rev)!r}: {where}") from error


def _refuse(revision: str, failures: dict[str, Exception] | Exception) -> NoReturn:
    """Raise UserError for what DVC could not read of a revision: some files, or all of it."""
    if not isinstance(failures, dict):
        raise UserError(f"{printable(revision)}: cannot be read: {one_line(failures)}")
    damaged = [f"{path}: cannot be read: {one_line(each)}" for path, each in failures.items() if not _missing(each)]
    if damaged:
        raise UserError("\n".join(damaged))
    what = ", ".join(failures)
    if revision == WORKSPACE:
        raise UserError(f"{what}: missing: run `dvc repro`, or `dvc pull` if a remote has the outputs")
    cure = "run `dvc fetch --all-commits` if a remote has it, or check out that revision and run `dvc repro`"
    raise UserError(f"{what}: missing in the cache for {printable(revision)}: {cure}")


def _missing(failure: Exception) -> bool:
    return isinstance(failure, FileNotFoundError) or isinstance(failure.__cause__, FileNotFoundError)


def _groups(show: Callable[..., dict[str, Any]], revisions: list[str]) -> list[Group]:
    """Return the params or the metrics that DVC shows of one or two revisions, in the order of their files."""
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
            values[revision] |= flatten(file["data"])
    old, new = values[revisions[0]], values[WORKSPACE]
    groups: dict[str, list[Row]] = {"": []}
    for name in new | old:
        group, _, rest = name.partition(".") if "." in name else ("", "", name)
        groups.setdefault(group, []).append(Row(rest, old.get(name, MISSING), new.get(name, MISSING)))
    return [Group(name, rows) for name, rows in groups.items() if rows]


def _plots(repo: Repo, revisions: list[str]) -> tuple[list[Chart], list[Picture]]:
    """Return the charts and the pictures that `dvc plots diff` shows."""
    charts, pictures = [], []
    with TemporaryDirectory() as folder:
        plots = repo.plots.show(revs=revisions)
        for renderer, failures, others in match_defs_renderers(plots, folder, repo.plots.templates_dir):
            for revision, failure in {**others, **failures}.items():
                _refuse(revision, failure)
            shown = to_json(renderer)
            if renderer.TYPE == "vega":
                charts += [Chart(renderer.name, _title(each["content"]), each["content"]) for each in shown]
            else:
                images = {each["revisions"][0]: _data_uri(Path(each["url"])) for each in shown}
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
    found = []
    for path, by_epoch in folders.items():
        epochs = sorted(by_epoch)
        epochs = [epochs[index] for index in evenly_spread(len(epochs), MOST_PICTURES)]
        shown = [by_epoch[epoch] for epoch in epochs]
        found.append(Sequence(path, epochs, shown, rest.pop(f"{path}.gif", None)))
    return found, list(rest.values())


def _stages(repo: Repo) -> tuple[list[Stage], Drawing]:
    """Return the stages, from the top of the DAG down, and the DAG."""
    graph = repo.index.graph  # from each stage to those that it needs
    stale = repo.status()
    stages = {node.addressing: Stage(node.addressing, node.desc or "", node.addressing in stale) for node in graph}
    drawing = lay_out(sorted(stages), sorted((end.addressing, start.addressing) for start, end in graph.edges))
    return [stages[box.name] for box in sorted(drawing.boxes, key=lambda box: box.xy[::-1])], drawing
