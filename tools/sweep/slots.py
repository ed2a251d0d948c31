"""Private clones of the project, in .dvc/tmp/sweep/, in which the runs of a sweep take place.

`dvc exp run --temp` and `--queue` rewrite the workspace for a moment to prepare an experiment, and leave it so if they
are killed then. Nothing here touches the workspace. Besides, a clone outlives a sweep that is killed, and with it the
checkpoint of a training.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from dvc.config import Config
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from stages.runtime.errors import UserError, one_line
from tools.sweep.plan import Run

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps two sweeps apart
    fcntl = None  # type: ignore[assignment]

FOLDER = Path(".dvc/tmp/sweep")  # ignored by git and DVC


def git(*arguments: str, folder: Path = Path()) -> str:
    """Return the output of a git command. Raises UserError with the last line of its errors if it fails."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")  # noqa: S603
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {one_line(done.stderr.strip().rpartition(chr(10))[2])}")
    return done.stdout


@contextmanager
def one_sweep_at_a_time() -> Iterator[int | None]:
    """Wait until no other sweep, and no run that a killed sweep left behind, works in the slots.

    Yield the lock, for the runs to inherit.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield None
        return
    lock = os.open(FOLDER / "lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another sweep, or for what is left of a killed one, to end", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


class Snapshot:
    """What the workspace has now: the last commit, uncommitted changes, and those deps that git does not track."""

    def __init__(self) -> None:
        self.head = git("rev-parse", "HEAD").strip()
        changed = git("status", "--porcelain", "--untracked-files=no")
        self.tree = git("stash", "create").strip() if changed else self.head  # adds a commit, and nothing else
        identity = {key: git("config", "--get", "--default", "", key).strip() for key in ("user.name", "user.email")}
        self.identity = {
            key: value for key, value in identity.items() if value
        }  # which may be set for this clone alone
        self.objects = git("rev-parse", "--path-format=absolute", "--git-path", "objects").strip()
        with Repo() as repo:
            self.config = repo.config.read("local")
            self.config.setdefault("cache", {})["dir"] = repo.cache.local_cache_dir
            deps = [dep for dep in repo.index.deps if not isinstance(dep, ParamsDependency) and dep.is_in_repo]
            written = {out.fs_path for out in repo.index.outs}
            self.deps = sorted({dep.def_path for dep in deps if dep.fs_path not in written})


class Slot:
    """A clone in which one run at a time takes place; `threads` and `lock` are for each run."""

    def __init__(self, number: int, snapshot: Snapshot, threads: int | None, lock: int | None) -> None:
        self.path, self.snapshot, self.threads, self.lock = FOLDER / str(number), snapshot, threads, lock
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self._starting = Lock()  # between `run` and `stop`
        try:
            self._check_out()
        except UserError:  # git was killed in it, perhaps
            shutil.rmtree(self.path)
            self._check_out()
        self._copy_untracked()
        self.collect()  # what a sweep that was killed left here

    def _check_out(self) -> None:
        """Make the clone, if there is none yet, and all its tracked files those of the snapshot."""
        self.path.mkdir(exist_ok=True)
        git("init", "--quiet", folder=self.path)
        for key, value in self.snapshot.identity.items():
            git("config", key, value, folder=self.path)
        objects = self.path / ".git/objects/info/alternates"  # read in place, not copied
        objects.write_text(f"{self.snapshot.objects}\n", encoding="utf-8")
        git("checkout", "--quiet", "--force", "--detach", self.snapshot.head, folder=self.path)
        git("restore", f"--source={self.snapshot.tree}", "--staged", "--worktree", ":/", folder=self.path)
        with Config(dvc_dir=str(self.path / ".dvc")).edit("local") as config:
            config.update(self.snapshot.config)

    def _copy_untracked(self) -> None:
        """Make the deps that git does not track, such as a table in data/raw, those of the workspace."""

        def untracked(folder: Path) -> set[str]:
            names = git("ls-files", "--others", "-z", "--", *self.snapshot.deps, folder=folder).split("\0")
            return {name for name in names if name and "__pycache__" not in name}

        wanted = untracked(Path())
        for name in untracked(self.path) - wanted:
            (self.path / name).unlink()
        for name in wanted:
            ours, theirs = self.path / name, Path(name).stat()
            if not ours.exists() or (ours.stat().st_size, ours.stat().st_mtime_ns) != (
                theirs.st_size,
                theirs.st_mtime_ns,
            ):
                ours.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(name, ours)

    def collect(self) -> None:
        """Move the experiments of the clone into the project's own repository; none is left here."""
        mine = f"refs/exps/{self.snapshot.head[:2]}/{self.snapshot.head[2:]}/"
        for ref in git("for-each-ref", "--format=%(refname)", "refs/exps", folder=self.path).split():
            if ref.startswith(mine):
                git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(self.path), f"+{ref}:{ref}")
            git("update-ref", "-d", ref, folder=self.path)

    def run(self, run: Run) -> str | None:
        """Run the pipeline with `dvc exp run`. Return None, or, if it failed, the line that says why."""
        self._check_out()
        (self.path / "params.yaml").write_text(run.text, encoding="utf-8", newline="\n")
        environment = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        environment |= os.environ  # where the user may have set it
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        with self._starting, (log := self.log(run)).open("wb") as file:
            if self.stopped:
                return "interrupted"
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "dvc", "exp", "run", "--name", run.name],
                cwd=self.path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it by `stop`
                pass_fds=() if self.lock is None else (self.lock,),
            )
        if self.process.wait():
            return _reason(log.read_text(encoding="utf-8", errors="replace"))
        log.unlink()
        return None

    def log(self, run: Run) -> Path:
        """Return where the output of a run is, which stays if the run fails."""
        return FOLDER / f"{run.name}.log"

    def stop(self) -> None:
        """Stop the run, whose training then saves a checkpoint, and start no other."""
        with self._starting:
            self.stopped = True
            if self.process and self.process.poll() is None and hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGTERM)


def prepared(jobs: int, lock: int | None) -> list[Slot]:
    """Return a slot for each of so many jobs, which share the cores."""
    for log in FOLDER.glob("*.log"):  # of runs that failed or were killed in an earlier sweep
        log.unlink()
    snapshot = Snapshot()
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    return [Slot(number, snapshot, threads, lock) for number in range(jobs)]


def _reason(output: str) -> str:
    """Return the last line that a stage printed before DVC reported that it failed, or what DVC reported."""
    lines: Sequence[str] = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    errors = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    first = errors[0] if errors else len(lines)
    said = lines[first - 1] if first else ""
    own = not said or said.startswith(("> ", "Running ", "Reproducing ", "Stage "))
    ended_well = " -> data/" in said  # the line that a stage ends with
    return lines[first].removeprefix("ERROR: ") if errors and (own or ended_well) else said
