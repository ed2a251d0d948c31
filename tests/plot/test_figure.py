import numpy as np
import pytest

from stages.plot.figure import draw, image_of, new_panels, short_label, title_of


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("age", "age"),
        ("exactly ten", "exac…y ten"),
        ("measurement_12", "meas…nt_12"),
        ("0123456789", "0123456789"),
        ("a\n\tb\u2028c", "a b c"),
        ("性别 size", "□□ size"),
        ("\x07\ue000", "□□"),
        ("", ""),
    ],
)
def test_a_name_is_printed_on_one_line_of_limited_width_in_the_characters_of_the_font(name: str, printed: str) -> None:
    assert short_label(name, 10) == printed


LONG = "COUNT OF " * 20
ODD = ["$", "$x$", r"$\frac", r"\$", "_age", "100 %", "{x:.4f}", "性别", LONG, "\n"]


@pytest.mark.parametrize("names", [*([name] for name in ODD), [LONG] * 2, [LONG] * 12, [*ODD, "a", "b"]])
def test_labels_of_any_name_stay_inside_the_picture(names: list[str]) -> None:
    canvas, _ = new_panels("Learning", names, [f"{name}{index}" for index, name in enumerate(names)], dpi=50)
    draw(canvas)
    pixels = np.asarray(image_of(canvas).convert("L"))
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()


def test_a_dollar_sign_in_a_name_is_a_dollar_sign() -> None:
    _, (panel,) = new_panels("Learning", ["$a_b$"], ["y"], dpi=50)
    as_it_stands = panel.xaxis.label.get_window_extent().width
    panel.xaxis.label.set_parse_math(True)
    assert panel.xaxis.label.get_window_extent().width < as_it_stands


def test_a_title_says_how_many_panels_there_are_only_if_some_are_left_out() -> None:
    assert title_of("Learning", 12, "targets") == "Learning"
    assert title_of("Learning", 13, "targets") == "Learning: first 12 of 13 targets"


def test_a_label_that_all_panels_share_is_written_once() -> None:
    canvas, panels = new_panels("Learning", ["a", "a"], ["b", "c"], dpi=50)
    assert [panel.get_xlabel() for panel in panels] == ["", ""]
    assert [panel.get_ylabel() for panel in panels] == ["b", "c"]
    assert (canvas.figure.get_supxlabel(), canvas.figure.get_supylabel()) == ("a", "")


def test_wide_numbers_push_no_label_out_of_the_picture() -> None:
    canvas, (panel,) = new_panels("Learning", ["x"], ["y"], dpi=50)
    panel.set_ylim(123450, 123460)
    panel.yaxis.set_major_formatter("{x:.9f}")
    draw(canvas)
    assert panel.yaxis.label.get_window_extent().x0 >= 0
