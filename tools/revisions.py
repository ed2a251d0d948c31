"""Commits, branches, tags and experiments, as people name them, and DVC's errors about them in one line."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.utils import resolve_name
from dvc.scm import RevError, resolve_rev

from stages.runtime.errors import UserError, one_line, printable

WORKSPACE = "workspace"  # what DVC calls the files as they are now


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Suppress what DVC prints, and turn its errors into UserError."""
    try:
        with redirect_stderr(io.StringIO()):
            yield
    except DvcException as error:
        raise UserError(one_line(error)) from error


def named(repo: Repo, rev: str) -> tuple[str, str]:
    """Return what DVC is to call a revision, and its commit. Raises UserError if there is no such revision.

    An experiment whose name could begin the digits of a commit, such as `a1`, is called by its commit: DVC looks up no
    digits as short as that.
    """
    try:
        return rev, str(resolve_rev(repo.scm, rev))
    except (RevError, ValueError) as error:
        if experiment := resolve_name(repo.scm, [rev]).get(rev):
            commit = str(repo.scm.get_ref(str(experiment)))
            return commit[:7], commit
        where = "`git log` lists commits, `dvc exp list` experiments"
        raise UserError(f"REV: must be a commit, branch, tag or experiment, got {printable(rev)!r}: {where}") from error
