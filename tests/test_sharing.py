"""The commands of docs/sharing.md, run by three people, each with a home: Ada computes, Bob and Carol get results."""

import getpass
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forks
from tests.conftest import ENVIRONMENT, PROJECT, Copy
from tests.markdown import Command, blocks, commands, difference

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the page shows the commands of a POSIX shell")
PAGE = PROJECT / "docs/sharing.md"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
ADDRESS = "https://git.example.com/team/project.git"
SSH = "A server, by SSH"
GIT_CONFIG = "[user]\n\tname = Ada\n\temail = ada@example.com\n[pull]\n\trebase = false\n"


class World:
    """A home, a git server, a DVC remote, and Ada's clone, in which the pipeline has run."""

    def __init__(self, root: Path, trained: Copy) -> None:
        self.root = root
        self.followed: list[Command] = []
        self.home, self.storage, self.server = root / "home", root / "storage", root / "project.git"
        self.home.mkdir()
        (self.home / ".gitconfig").write_text(GIT_CONFIG)
        self.ada = trained.twin(root / "ada").path
        self.run("git branch --move main", self.ada)
        self.run(f"git clone --quiet --bare . {self.server}", self.ada)
        self.run(f"git remote add origin {self.server}", self.ada)
        self.run("git fetch --quiet && git branch --quiet --set-upstream-to origin/main", self.ada)
        self.places = {
            ADDRESS: str(self.server),
            "/mnt/team/project": str(self.storage),
            "/srv/project": str(self.storage),
            "user ada": f"user {getpass.getuser()}",
        }

    def run(self, command: str, where: Path) -> str:
        return self.start(where, "bash", "-c", command)

    def start(self, where: Path, *command: str) -> str:
        environment = ENVIRONMENT | forks.shell() | {"HOME": str(self.home)}
        environment.pop("SSH_AUTH_SOCK", None)  # it would offer the keys of the person who runs the tests
        process = forks.start(where, environment, *command)
        try:
            output = process.communicate(timeout=120)[0]
        finally:
            process.kill()
        assert process.returncode == 0, f"{' '.join(command)}\n{output}"
        return output

    def follow(self, section: str, where: Path, start: str = "", count: int | None = None) -> tuple[Path, str]:
        """Run `count` commands of a section, from the first that starts with `start`, and compare their output.

        Return the folder in which they end and the last output.
        """
        output = ""
        of_section = [command for command in commands(PAGE) if command.section == section]
        first = next(index for index, command in enumerate(of_section) if command.text.startswith(start))
        for command in of_section[first:][:count]:
            self.followed.append(command)
            text = command.text
            for place, here in self.places.items():
                text = text.replace(place, here)
            if text.startswith("cd "):
                where = where / text[3:]
            elif "pip install" not in text:
                output = self.run(text, where)
                unlike_page = difference(command, output)
                assert not unlike_page, unlike_page
        return where, output


def change(path: Path, key: str, value: int) -> None:
    text, changes = re.subn(rf"(?m)^(  {key}: )\S+", rf"\g<1>{value}", (path / "params.yaml").read_text("utf-8"))
    assert changes == 1
    (path / "params.yaml").write_text(text, "utf-8")


def test_three_people_share_data_models_and_experiments(trained: Copy, tmp_path: Path) -> None:
    world = World(tmp_path, trained)
    ada, bob, carol = world.ada, tmp_path / "bob", tmp_path / "carol"
    bob.mkdir()
    carol.mkdir()

    world.follow("Set up a remote, once", ada)
    assert f"url = {world.storage}" in (ada / ".dvc/config").read_text()
    bob, _ = world.follow("Get what a colleague has computed", bob)

    change(ada, "max_frames", 2)
    world.follow("Every day", ada)
    world.run("git pull && dvc pull", bob)
    picture = "data/plots/learning.gif"
    assert (bob / picture).read_bytes() == (ada / picture).read_bytes() != (trained.path / picture).read_bytes()

    model = (ada / "data/net_params.pkl").read_bytes()
    world.follow("Give a model away", carol, "dvc get", 1)
    assert (carol / "net_params.pkl").read_bytes() == model
    (python,) = blocks(PAGE, "python")
    code = f"{python.text}\nprint(list(state))\n".replace(ADDRESS, str(world.server))
    assert "'hidden.weight'" in world.start(carol, "python", "-c", code)
    own = carol / "own"
    world.run(f"git init --quiet {own} && cd {own} && dvc init --quiet", carol)
    world.follow("Give a model away", own, "dvc import")
    assert (own / "net_params.pkl").read_bytes() == model
    world.follow("Versions", ada, count=2)
    world.follow("Versions", carol, "dvc artifacts get")
    assert (carol / "network-v1.pkl").read_bytes() == model

    world.run("dvc exp run --name adam --set-param plot.max_frames=3", ada)
    world.follow("Share an experiment", ada, count=1)
    world.follow("Share an experiment", bob, "dvc exp list")
    assert (bob / picture).read_bytes() == (ada / picture).read_bytes()
    world.run("dvc exp branch adam try-adam && dvc exp remove --git-remote origin adam", bob)
    assert "adam" not in world.run("git ls-remote origin", bob)

    change(ada, "max_frames", 4)
    world.run("dvc repro", ada)
    world.follow("Share a run that nobody committed", ada, count=1)
    change(bob, "max_frames", 4)
    _, output = world.follow("Share a run that nobody committed", bob, "dvc repro")
    assert "Stage 'plot' is cached" in output
    assert "Running stage" not in output
    assert (bob / picture).read_bytes() == (ada / picture).read_bytes()

    world.run("dvc install", ada)
    (ada / "data/plots").rename(ada / "plots")
    world.run("git checkout --quiet -b other main", ada)
    assert (ada / "data/plots").is_dir()  # by the hook
    assert set(commands(PAGE)) - set(world.followed) == {
        command for command in commands(PAGE) if command.section == SSH
    }


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Run an SSH server on 127.0.0.1, with its own keys, during a test; return its port."""
    needed = {"sshd": SSHD, "dvc-ssh": importlib.util.find_spec("dvc_ssh")}
    lacking = ", ".join(name for name, installed in needed.items() if not installed)
    if lacking and sys.platform == "linux" and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {lacking}")
    if lacking or not SSHD:
        pytest.skip(f"not installed: {lacking} (Debian's openssh-server, requirements-ssh.txt)")
    folder = tmp_path / "sshd"
    folder.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    settings = [
        f"ListenAddress 127.0.0.1:{number}",
        f"HostKey {folder}/host",
        f"AuthorizedKeysFile {folder}/user.pub",
        "PidFile none",
        "StrictModes no",  # since everyone may write to the folders of tests
        "Subsystem sftp internal-sftp",
    ]
    (folder / "config").write_text("\n".join(settings))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd insists on it
    with subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=subprocess.PIPE, text=True) as server:
        try:
            while server.poll() is None and not listens(number):
                time.sleep(0.05)
            assert server.poll() is None, server.stderr and server.stderr.read()
            yield number
        finally:
            server.terminate()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_clone_pulls_by_ssh_what_was_pushed_by_ssh(trained: Copy, tmp_path: Path, port: int) -> None:
    world = World(tmp_path, trained)
    host = f"Host storage.example.com\n\tHostName 127.0.0.1\n\tPort {port}\n"
    (world.home / ".ssh").mkdir()
    (world.home / ".ssh/config").write_text(f"{host}\tIdentityFile {tmp_path}/sshd/user\n")
    world.follow(SSH, world.ada, count=3)
    world.run("git commit --quiet --all --message 'Add a remote' && git push --quiet", world.ada)

    (world.home / ".ssh/config").write_text(host)
    shutil.move(tmp_path / "sshd/user", world.home / ".ssh/id_ed25519")
    world.run("git clone --quiet project.git bob", tmp_path)
    world.follow(SSH, tmp_path / "bob", "dvc remote modify")
    world.run("dvc pull", tmp_path / "bob")
    assert "Running stage" not in world.run("dvc repro", tmp_path / "bob")
    assert world.run("git status --porcelain", tmp_path / "bob") == ""
    world.run(f"dvc get {world.server} data/net_params.pkl", tmp_path)
    assert (tmp_path / "net_params.pkl").read_bytes() == trained.read("data/net_params.pkl")
