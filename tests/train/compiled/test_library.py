"""The libraries that are kept: which are used again, made again, or not trusted."""

import os
from pathlib import Path

import pytest

from stages.runtime.errors import UserError
from stages.train.compiled import library, trust
from tests.conftest import posix_errors


class Cache:
    """A folder for libraries; what is compiled are the bytes `made`, and these stand for a library's functions."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.made, self.compiled = folder, b"right", 0
        monkeypatch.setattr(library, "FOLDER", folder)
        monkeypatch.setattr(library, "_compiled", self.compile)
        monkeypatch.setattr(library, "_loaded", self.loaded)

    def compile(self, header: str) -> bytes:
        self.compiled += 1
        return self.made

    def loaded(self, content: bytes) -> object:
        if content == b"not loadable":
            raise OSError("version `GLIBC_9' not found")
        return content

    def load(self, header: str = "header") -> library.Library:
        loaded = library.load(header)
        assert loaded.functions == b"right"
        return loaded

    def paths(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    return Cache(tmp_path / "new/cache", monkeypatch)


def test_a_kept_library_is_used_again(cache: Cache) -> None:
    assert cache.load().is_new
    (path,) = cache.paths()
    assert path.stat().st_mode & 0o77 == cache.folder.stat().st_mode & 0o77 == 0
    again = cache.load()
    assert (again.is_new, again.path, cache.compiled) == (False, path, 1)
    cache.folder.chmod(0o500)
    path.chmod(0o400)
    assert not cache.load().is_new
    cache.folder.chmod(0o700)
    again.discard()
    again.discard()
    assert cache.load().is_new


@pytest.mark.parametrize("content", [b"", b"righ", b"wrong"])
def test_a_damaged_library_is_made_again(content: bytes, cache: Cache) -> None:
    cache.load()
    (path,) = cache.paths()
    path.write_bytes(content)
    assert cache.load().is_new
    assert cache.paths() == [path]
    assert not cache.load().is_new


def test_a_library_that_does_not_load_here_is_made_again(cache: Cache) -> None:
    cache.load()
    (path,) = cache.paths()
    path.rename(path.with_name(f"{path.stem.rsplit('.', 1)[0]}.{library._digest(b'not loadable')}.so"))
    cache.paths()[0].write_bytes(b"not loadable")
    assert cache.load().is_new
    assert cache.paths() == [path]


def test_a_new_library_that_does_not_load_here_is_one_line(cache: Cache) -> None:
    cache.made = b"not loadable"
    with pytest.raises(UserError, match="compiled steps cannot be loaded: version `GLIBC_9' not found: use"):
        cache.load()


def test_the_key_covers_the_code_the_processor_and_the_environment(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [cache.load().made_from, cache.load("other").made_from]
    for name, value in (("processor_model", lambda: "another"), ("FLAGS", ["-O1"])):
        monkeypatch.setattr(library, name, value)
        keys.append(cache.load().made_from)
    monkeypatch.setattr(library.platform, "libc_ver", lambda: ("glibc", "9"))
    keys.append(cache.load().made_from)
    monkeypatch.setenv("CPATH", "/elsewhere")
    keys.append(cache.load().made_from)
    monkeypatch.setenv("CXX", "g++ -O1")
    keys.append(cache.load().made_from)
    assert len(set(keys)) == len(keys) == cache.compiled


def test_of_many_libraries_those_used_last_are_kept(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "KEPT", 2)
    cache.folder.mkdir(parents=True, mode=0o700)
    for age in (1, 2, 3):
        old = cache.folder / f"{age}.so"
        old.touch()
        os.utime(old, (0, 1000 - age))
    cache.load()
    assert [path.name for path in cache.paths() if len(path.name) == 4] == ["1.so"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_no_library_is_loaded_from_a_folder_where_others_write(
    mode: int, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.load()
    (path,) = cache.paths()
    cache.folder.chmod(mode)
    assert cache.load().path is None
    assert capsys.readouterr().err == (
        f"The compiled library is not kept: {cache.folder}: others can write to it or to a folder above "
        "it: take that permission away\n"
    )
    assert cache.paths() == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_no_library_is_loaded_that_another_user_could_have_written(cache: Cache) -> None:
    cache.load()
    (path,) = cache.paths()
    path.chmod(0o666)
    assert cache.load().is_new
    if os.getuid() == 0:  # only root gives files away
        os.chown(path, 12345, -1)
        assert cache.load().is_new
        assert path.stat().st_uid == 0
        os.chown(cache.folder, 12345, -1)
        assert cache.load().path is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_folder_is_not_the_users_alone_where_others_can_replace_it(tmp_path: Path) -> None:
    folder = tmp_path / "open/closed/folder"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    folder.parent.chmod(0o777)
    tmp_path.chmod(0o755)
    reached = [path for path in tmp_path.parents if not path.stat().st_mode & 0o011]
    assert trust.only_the_user_writes(folder) == bool(reached)  # nobody else gets as far as pytest's folder
    (tmp_path / "link").symlink_to(folder)
    folder.parent.chmod(0o755)
    assert trust.only_the_user_writes(tmp_path / "link")


def test_a_folder_that_cannot_be_made_is_no_obstacle(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").touch()
    assert cache.load().path is None
    told = capsys.readouterr().err
    assert told.startswith(f"The compiled library is not kept: {cache.folder}: cannot be used: ")
    assert told.count("\n") == 1


@posix_errors
def test_a_folder_that_cannot_be_written_is_no_obstacle(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "_digest", lambda content: "f" * 300)  # too long a name
    assert cache.load().path is None
    assert capsys.readouterr().err.endswith(
        ".so: cannot be written: File name too long: fix this, then run `dvc repro`\n"
    )


def test_without_a_compiler_what_another_one_has_made_is_used(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache.load()
    other = tmp_path / "compiler"
    other.write_text("#!/bin/sh\necho 1.0")
    other.chmod(0o700)
    monkeypatch.setenv("CXX", str(other))
    assert cache.load().is_new
    other.write_text("#!/bin/sh\necho 2.0")
    assert cache.load().is_new
    assert len(cache.paths()) == 1
    monkeypatch.setenv("CXX", "no-compiler --fast")
    assert not cache.load().is_new
    cache.paths()[0].unlink()
    with pytest.raises(
        UserError,
        match=r"^params.yaml: train.steps: compiled steps need the C\+\+ compiler no-compiler: install the package",
    ):
        cache.load()


@pytest.mark.parametrize("named", ["", " ", None])
def test_the_compiler_is_that_of_the_system_unless_one_is_named(
    named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    if named is not None:
        monkeypatch.setenv("CXX", named)
    assert library._compiler() in (["g++"], ["clang++"])


def test_a_compiler_is_named_by_a_command_or_by_a_path_with_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++ -std=c++20 -I 'a b'")
    assert library._compiler() == ["g++", "-std=c++20", "-I", "a b"]
    monkeypatch.setenv("CXX", "g++ 'a")
    assert library._compiler() == ["g++ 'a"]
    path = tmp_path / "my compiler"
    path.touch(0o700)
    monkeypatch.setenv("CXX", str(path))
    assert library._compiler() == [str(path)]


@posix_errors
@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("printf 'x.h: In function:\\nx.h:3: error: no\\nx.h:4: error: never\\n' >&2; exit 1", "x.h:3: error: no"),
        ("printf 'cannot \\377 write\\n' >&2; exit 1", "cannot \ufffd write"),
        ("exit 7", "it ended with status 7 and no output"),
        ("exit 0", "it ended with status 0 and no output"),
    ],
)
def test_what_a_compiler_stumbles_over_is_one_line(
    script: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    with pytest.raises(
        UserError, match=f"compiled steps need a C.. compiler that works: {compiler}: .*{fault}"
    ) as caught:
        library.load("")
    assert "\n" not in str(caught.value)


def test_without_a_home_folder_a_library_is_used_once(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_home(name: str) -> Path:
        raise RuntimeError(name)

    monkeypatch.setattr(library.platformdirs, "user_cache_path", no_home)
    monkeypatch.setattr(library, "FOLDER", library._cache_folder())
    assert cache.load().path is None
    assert capsys.readouterr().err == (
        "The compiled library is not kept: there is no home folder: set XDG_CACHE_HOME\n"
    )
