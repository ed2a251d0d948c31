import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from stages import history
from stages.columns import Columns, Number
from stages.plot.data import data_panels
from stages.plot.figure import short_label
from stages.plot.fonts import covering, fonts_for
from stages.plot.stage import boxes
from tests.conftest import PROJECT
from tests.plot.test_data import points
from tests.plot.test_learning import snapshots

DEJAVU = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))


def make_font(path: Path, characters: str, style: str = "Regular") -> str:
    """Write a font in which each of the characters is a black square."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in [(100, 800), (900, 800), (900, 0)]:
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"uni{ord(character):04X}" for character in characters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(name): glyph for name, glyph in zip(characters, names[1:], strict=True)})
    font.setupGlyf({name: pen.glyph() for name in names})
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": f"Squares {path.stem}", "styleName": style})
    font.setupOS2(usWeightClass=700 if style == "Bold" else 400)
    font.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    font.save(path)
    return str(path)


def test_as_few_fonts_as_have_the_characters_are_taken_and_damaged_ones_passed_over(tmp_path: Path) -> None:
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    paths = [
        make_font(tmp_path / "all-bold.ttf", "房价面", "Bold"),
        make_font(tmp_path / "few.ttf", "房"),
        make_font(tmp_path / "more.ttf", "房价面"),
        make_font(tmp_path / "other.ttf", "積"),
        str(tmp_path / "damaged.ttf"),
        DEJAVU,
    ]
    for order in (paths, paths[::-1]):
        taken = [(entry.name, added) for entry, added in covering(set("房价面積한"), order)]
        assert taken == [("Squares more", set("房价面")), ("Squares other", {"積"})]


def test_names_that_the_own_font_has_change_nothing() -> None:
    before = list(matplotlib.rcParams["font.family"])
    with fonts_for(["age", "Größe", "x²", "цена", " \n"]) as without_font:
        assert without_font == ""
        assert matplotlib.rcParams["font.family"] == before


@pytest.mark.skipif(sys.platform != "linux", reason="fonts lie elsewhere on other systems")
def test_a_font_of_the_system_draws_what_the_own_font_lacks(tmp_path: Path) -> None:
    make_font(tmp_path / "share/fonts/squares.ttf", "房价")
    columns = Columns(features=[Number(name="房价")], targets=[Number(name="龘")])
    history.write_snapshots(str(tmp_path / "data/history.npz"), snapshots()._replace(columns=columns))
    history.write_losses(str(tmp_path / "data/loss.csv"), {"loss": [0.5] * 25})
    code = """if True:
        import sys
        from stages.plot import stage
        print(stage.run(stage.Params(kernels="portable", plot=stage.Plot(dpi=50, max_frames=2, frame_seconds=1))))
        from matplotlib.font_manager import fontManager
        print(*[font.name for font in fontManager.ttflist], sep=", ")
    """
    without_others = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "share"), "PATH": ""}
    environment = os.environ | without_others | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    said, fonts = done.stdout.splitlines()
    assert "DejaVu Sans" in fonts
    assert "房" not in said  # the squares have it, or a font of this machine
    assert done.stderr == ""


def test_characters_that_no_font_has_are_said_with_what_to_do() -> None:
    assert boxes("") == ""
    cure = "install one that has them, e.g. the package fonts-noto-cjk, then run `dvc repro --single-item --force plot`"
    assert boxes("价房") == f", with □ for 价房, which no font on this machine has: {cure}"
    assert (
        boxes("零一二三四五六七八九十")
        == f", with □ for 零一二三四五六七八九…, which no font on this machine has: {cure}"
    )


def test_wide_names_are_cut_between_characters_and_lie_apart(tmp_path: Path) -> None:
    name = "房价" * 20
    fontManager.addfont(make_font(tmp_path / "wide.ttf", "房价"))
    features = [Number(name=f"{name}{index}") for index in range(12)]
    columns = Columns(features=[*features], targets=[Number(name=name)])
    with matplotlib.rc_context({"font.family": ["DejaVu Sans", "Squares wide"]}):
        assert short_label(name, 10) == "房价…房价"
        canvas, panels = data_panels(*points(columns), columns, dpi=100)
        outlines = [box for panel in panels if (box := panel.get_tightbbox())]
        assert not any(one.overlaps(other) for one, other in combinations(outlines, 2))
        pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()
