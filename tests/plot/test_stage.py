import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from pydantic import ValidationError

from stages import history
from stages.columns import Category, Columns, Number
from stages.history import Snapshots
from stages.plot import defaults, pictures
from stages.plot import stage as plot
from stages.plot.class_data import draw_class_data
from stages.plot.confusion import draw_confusions
from stages.plot.data import draw_data
from stages.plot.learning import draw_learning
from stages.plot.losses import draw_losses
from stages.runtime.errors import UserError
from tests.conftest import PROJECT, Copy, before_summary, links
from tests.plot.test_confusion import learned
from tests.plot.test_learning import snapshots

RED = (255, 0, 0)


@pytest.fixture(scope="module")
def plotted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plotted")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        history.write_snapshots("data/history.npz", snapshots())
        history.write_losses("data/loss.csv", {"loss": [0.5 / epoch for epoch in range(1, 26)]})
        run()
    return folder


@pytest.fixture
def plotted(plotted_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(plotted_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data/plots"


def run(max_frames: int = 9, frame_seconds: float = 0.25) -> str:
    settings = plot.Plot(dpi=50, max_frames=max_frames, frame_seconds=frame_seconds)
    return plot.run(plot.Params(kernels="portable", plot=settings))


def test_the_pictures_are_named_after_their_epochs(plotted: Path) -> None:
    names = sorted(path.relative_to(plotted).as_posix() for path in plotted.rglob("*.*"))
    learning = [f"learning/{epoch}.png" for epoch in (0, 10, 20, 25)]
    assert names == sorted(["data.png", "loss.png", "learning.gif", *learning])
    assert run() == f"{len(names)} pictures -> data/plots"


def test_the_pictures_have_the_size_that_the_dpi_gives(plotted: Path) -> None:
    for path in plotted.rglob("*.*"):
        with Image.open(path) as picture:
            assert picture.size == (320, 240)


def test_the_animation_shows_each_picture_for_its_time_in_its_colours(plotted: Path) -> None:
    with Image.open(plotted / "learning.gif") as animation:
        frames = [(frame.info["duration"], frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
        assert animation.info["loop"] == 0
    assert [duration for duration, _ in frames] == [250] * 4
    for epoch, (_, frame) in zip((0, 10, 20, 25), frames, strict=True):
        with Image.open(plotted / f"learning/{epoch}.png") as png:
            picture = np.asarray(png.convert("RGB"), dtype=int)
        difference = np.abs(np.asarray(frame, dtype=int) - picture)
        assert difference.mean() < 0.5
        for colour in (RED, (255, 255, 255), (31, 119, 180)):
            exact = (picture == colour).all(axis=2)
            assert exact.any()
            assert difference[exact].max() <= 1


def test_the_pictures_show_the_names_that_the_history_has(plotted: Path) -> None:
    columns = Columns(features=[Number(name="age")], targets=[Number(name="price")])
    shown = snapshots()
    history.write_snapshots("data/history.npz", shown._replace(columns=columns))
    run()
    with Image.open(plotted / "data.png") as picture:
        assert picture.tobytes() == draw_data(shown.x, shown.y, columns, dpi=50).tobytes()
    with Image.open(plotted / "learning/0.png") as picture:
        assert picture.convert("RGB").tobytes() == next(draw_learning(shown, columns, 50)).convert("RGB").tobytes()


def test_classes_have_pictures_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = Category(name="species", levels=["Adelie", "Chinstrap", "\ue000"])  # a character that no font has
    shown = learned(3, 60)._replace(columns=Columns(features=[Number(name="bill")], targets=[target]))
    losses = {"loss": np.linspace(1.1, 0.1, 20)}
    history.write_snapshots("data/history.npz", shown)
    history.write_losses("data/loss.csv", {"loss": losses["loss"].tolist()})
    assert run().startswith(r"6 pictures, with □ for \ue000, which no font")
    assert shown.columns
    drawn = {
        "data": draw_class_data(shown.x, shown.y, shown.columns, 50),
        "loss": draw_losses(losses, 50, classes=True),
        "learning/0": next(draw_confusions(shown, shown.columns, 50)),
    }
    for name, expected in drawn.items():
        with Image.open(f"data/plots/{name}.png") as picture:
            assert picture.convert("RGB").tobytes() == expected.convert("RGB").tobytes()
    with Image.open("data/plots/learning.gif") as animation:
        for epoch, frame in zip((0, 10, 20), ImageSequence.Iterator(animation), strict=True):
            with Image.open(f"data/plots/learning/{epoch}.png") as png:
                assert frame.convert("RGB").tobytes() == png.convert("RGB").tobytes()


def test_a_loss_table_of_other_epochs_than_the_history_is_reported(plotted: Path) -> None:
    history.write_losses("data/loss.csv", {"loss": [0.5] * 24})
    with pytest.raises(UserError, match="^data/loss.csv: must have 25 epochs, got 24: run `dvc repro`$"):
        run()


def test_plotting_imports_no_torch() -> None:
    code = "import sys, stages.plot.stage; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


@links
def test_a_picture_an_earlier_run_left_is_removed_and_no_link_is_followed(plotted: Path) -> None:
    kept = {path: path.read_bytes() for path in plotted.rglob("*.*")}
    elsewhere = plotted.parent / "elsewhere"
    shutil.copytree(plotted / "learning", elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    (plotted / "learning/200.png").touch()
    (plotted / "older/learning").mkdir(parents=True)
    (plotted / "older/learning/0.png").touch()
    (plotted / "link").symlink_to(elsewhere, target_is_directory=True)
    (plotted / "older/link.png").symlink_to(elsewhere / "0.png")
    run()
    assert {path: path.read_bytes() for path in plotted.rglob("*.*")} == kept
    assert {path.name for path in plotted.iterdir()} == {"data.png", "loss.png", "learning", "learning.gif"}
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before


@links
@pytest.mark.parametrize("name", ["plots", "plots/learning"])
def test_a_folder_of_pictures_that_is_a_link_keeps_what_is_in_it(plotted: Path, name: str) -> None:
    folder, elsewhere = plotted.parent / name, plotted.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "mine.txt").touch()
    run()
    assert folder.is_symlink()
    assert (elsewhere / "mine.txt").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_picture_of_an_earlier_run_that_cannot_be_removed_is_reported(plotted: Path) -> None:
    (plotted / "older").mkdir()
    (plotted / "older/0.png").touch()
    (plotted / "older").chmod(0o500)
    told = r"^data/plots/older/0.png: cannot be removed: Permission denied: fix this, then run `dvc repro`$"
    with pytest.raises(UserError, match=told):
        run()
    (plotted / "older").chmod(0o700)


def many_snapshots(count: int) -> Snapshots:
    """Return that many snapshots, each of a different line."""
    x = np.linspace(-1, 1, 20, dtype="f4")[:, None]
    predictions = np.linspace(0, 1, count, dtype="f4")[:, None, None] * x
    return Snapshots(np.arange(count), np.linspace(0.5, 0.1, count), x, x, predictions)


@pytest.mark.parametrize("count", [2, 7, 8, 30])
def test_the_animation_shows_at_most_so_many_pictures_the_first_and_the_last_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    history.write_snapshots("data/history.npz", many_snapshots(count))
    history.write_losses("data/loss.csv", {"loss": [0.5] * (count - 1)})
    run(max_frames=7)
    pictures = [np.asarray(Image.open(f"data/plots/learning/{epoch}.png").convert("RGB")) for epoch in range(count)]
    shown = []
    with Image.open("data/plots/learning.gif") as animation:
        for frame in ImageSequence.Iterator(animation):
            differences = [np.abs(np.asarray(frame.convert("RGB"), "i4") - picture).mean() for picture in pictures]
            shown.append(int(np.argmin(differences)))
    assert (shown[0], shown[-1]) == (0, count - 1)
    assert len(shown) == min(count, 7)
    assert set(np.diff(shown)) <= {max(1, (count - 1) // 6), -(-(count - 1) // 6)}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the most memory that a process had, in KiB")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    code = """if True:
        import resource, sys
        from stages import history
        from stages.plot.stage import Params, Plot, run
        from tests.plot.test_stage import many_snapshots
        history.write_snapshots("data/history.npz", many_snapshots(int(sys.argv[1])))
        history.write_losses("data/loss.csv", {"loss": [0.5] * (int(sys.argv[1]) - 1)})
        run(Params(kernels="portable", plot=Plot(dpi=100, max_frames=2, frame_seconds=1)))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    """
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, count], cwd=tmp_path, env=environment, stdout=-1).stdout)
        for count in ("2", "102")
    ]
    assert peaks[1] - peaks[0] < 15  # MiB; a picture is 0.3


@pytest.mark.parametrize(("max_frames", "limit"), [(2, 300), (100, 6.55), (640, 1.02), (1000, 0.65)])
def test_frames_that_are_all_equal_are_shown_for_the_sum_of_their_times(
    tmp_path: Path, max_frames: int, limit: float
) -> None:
    plot.Plot(dpi=50, max_frames=max_frames, frame_seconds=limit)
    black, white = Image.new("P", (9, 9)), Image.new("P", (9, 9), 1)
    for frame in (black, white):
        frame.putpalette([0, 0, 0, 255, 255, 255])
    path = str(tmp_path / "equal.gif")
    pictures.write_animation(path, iter([white, *[black] * max_frames]), limit)
    with Image.open(path) as animation:
        animation.seek(1)
        assert animation.info["duration"] == pytest.approx(max_frames * limit * 1000)
    with pytest.raises(ValidationError, match=f"(must|should) be .*{limit}"):
        plot.Plot(dpi=50, max_frames=max_frames, frame_seconds=limit + 0.01)


def test_a_time_that_would_not_fit_is_reported_with_its_limit(copy: Copy) -> None:
    copy.set(plot__frame_seconds=60)
    told = copy.stage("plot", status=2)
    assert told == "params.yaml: plot.frame_seconds: must be at most 6.55 when plot.max_frames is 100, got 60\n"


def foreign_settings(folder: Path) -> None:
    """Write a settings file that cannot be read, and a list of fonts that has another font by the name of ours."""
    folder.mkdir(parents=True)
    (folder / "matplotlibrc").write_bytes(b"\xff\xfe")
    fonts = json.dumps(defaults.FONTS).replace("DejaVuSans.ttf", "DejaVuSerif.ttf")
    (folder / defaults.FONT_LIST).write_text(fonts, encoding="utf-8")


@pytest.mark.parametrize(
    "environment",
    [
        {"MPLBACKEND": "inline", "MATPLOTLIBRC": "rc"},
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MPLCONFIGDIR": "rc"},
        {"MPLCONFIGDIR": "/dev/null"},
        {"HOME": "home", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""},
    ],
)
def test_the_users_own_settings_and_fonts_of_matplotlib_change_nothing(done: Copy, environment: dict[str, Any]) -> None:
    before = {path: path.read_bytes() for path in done.path.glob("data/plots/**/*.*")}
    for folder in ("rc", "home/.config/matplotlib", "home/.cache/matplotlib"):
        foreign_settings(done.path / folder)
    (done.path / "matplotlibrc").write_text("figure.facecolor: black\nfont.size: 30\nno.such.key: 1\n")
    assert before_summary(done.stage("plot", **environment)) == ""
    assert {path: path.read_bytes() for path in done.path.glob("data/plots/**/*.*")} == before


def test_nothing_is_written_to_the_users_home(done: Copy, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    done.stage("plot", HOME=str(tmp_path / "home"), XDG_CONFIG_HOME="", XDG_CACHE_HOME="")
    assert not list((tmp_path / "home").iterdir())


def test_the_only_font_is_one_that_matplotlib_brings() -> None:
    code = "from stages.plot import figure; from matplotlib.font_manager import fontManager; "
    code += "import matplotlib; "
    code += "print(*[font.fname for font in fontManager.ttflist], matplotlib.get_data_path(), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, stdout=-1, text=True)
    found = done.stdout.splitlines()
    assert found == [str(Path(found[-1], "fonts/ttf/DejaVuSans.ttf")), found[-1]]


@pytest.mark.skipif(not shutil.which("prlimit"), reason="only Linux has prlimit")
def test_no_room_for_temporary_files_is_told(copy: Copy) -> None:
    told = copy.run("prlimit", "--fsize=0", "python", "-m", "stages", "plot", status=2)
    assert re.fullmatch(r"cannot make a temporary folder: [^\n]*: fix this, then run `dvc repro`\n", told)
