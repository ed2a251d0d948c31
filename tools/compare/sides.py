"""What is compared: the errors of the test rows, and the params, of the workspace and of revisions, as git has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dvc.repo import Repo
from dvc.utils.flatten import flatten
from dvc.utils.serialize import parse_yaml

from stages import residuals
from stages.residuals import Residuals
from stages.runtime.errors import UserError
from tools.revisions import WORKSPACE, errors_in_one_line, named

ERRORS, PARAMS = "data/errors.csv", "params.yaml"
STAGE = "evaluate"  # which writes the errors


class Side(NamedTuple):
    """A training to compare: what it is called, the errors of its test rows, and its params by name."""

    name: str
    errors: Residuals
    params: dict[str, Any]

    @property
    def networks(self) -> int:
        """How many networks it trained."""
        return max(1, *(len(metrics) for metrics in self.errors.without.values()))


def read(revs: Sequence[str]) -> list[Side]:
    """Return the sides, in their order. Raises UserError if a revision, its errors or its params cannot be read."""
    with errors_in_one_line(), Repo() as repo:
        return [_workspace(repo) if rev == WORKSPACE else _revision(repo, rev) for rev in revs]


def _workspace(repo: Repo) -> Side:
    if stale := repo.status(targets=[STAGE], with_deps=True):
        raise UserError(f"{WORKSPACE}: {', '.join(sorted(stale))} would run again: run `dvc repro` first")
    return Side(WORKSPACE, residuals.read(ERRORS), _params(Path(PARAMS).read_text(encoding="utf-8"), WORKSPACE))


def _revision(repo: Repo, rev: str) -> Side:
    _, commit = named(repo, rev)
    files = repo.scm.get_fs(commit)
    folder = Path(repo.root_dir).resolve().relative_to(Path(repo.scm.root_dir).resolve()).as_posix()

    def text(path: str) -> str:
        try:
            return files.open(f"{folder}/{path}".removeprefix("./"), mode="rb").read().decode()
        except FileNotFoundError as error:
            raise UserError(f"{rev}: has no {path}: check it out, then run `dvc repro` and commit") from error

    try:
        errors = residuals.parse(text(ERRORS))
    except ValueError as error:
        raise UserError(f"{rev}: {ERRORS}: {error}") from error
    return Side(rev, errors, _params(text(PARAMS), rev))


def _params(text: str, rev: str) -> dict[str, Any]:
    document = parse_yaml(text, f"{PARAMS} of {rev}")
    return dict(flatten(document))
