"""The Chinese pages have the structure, code, links and tables of the English ones, and each pair links both ways."""

import re

import pytest

from tests.conftest import PROJECT

pytestmark = pytest.mark.parametrize("page", ["README", "docs/luck", "docs/params", "docs/tutorial"])


def texts(page: str) -> list[str]:
    """Return the English page and the Chinese one."""
    return [(PROJECT / f"{page}{suffix}").read_text(encoding="utf-8") for suffix in (".md", ".zh-CN.md")]


def code(text: str) -> list[str]:
    """Return the fenced blocks of a page, their fences and languages included."""
    return re.findall(r"(?ms)^ *```.*?^ *```$", text)


def on_one_line(text: str) -> str:
    return " ".join(text.split())


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", text)


def test_both_have_the_same_headings(page: str) -> None:
    english, chinese = ([len(marks) for marks in re.findall(r"(?m)^(#+) ", prose(text))] for text in texts(page))
    assert english == chinese


def test_both_have_the_same_code_blocks(page: str) -> None:
    english, chinese = map(code, texts(page))
    assert english == chinese


def test_both_name_the_same_commands_params_and_files(page: str) -> None:
    english, chinese = (re.findall(r"`([^`]+)`", prose(text)) for text in texts(page))
    assert sorted(map(on_one_line, english)) == sorted(map(on_one_line, chinese))


def test_both_lead_to_the_same_places(page: str) -> None:
    english, chinese = map(links, texts(page))
    assert english == chinese


def links(text: str) -> list[str]:
    """Return the files that a page links to or shows, each Chinese one under its English name, sorted."""
    links_and_pictures = re.findall(r"""\]\(([^)]+)\)|src="([^"]+)\"""", prose(text))
    return sorted(
        (link or picture).replace(".zh-CN.md", ".md").partition("#")[0] for link, picture in links_and_pictures
    )


def test_links_within_a_page_lead_to_its_headings(page: str) -> None:
    for text in texts(page):
        headings = [heading.lower().replace(" ", "-") for heading in re.findall(r"(?m)^#+ (.+)", prose(text))]
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(headings)


def test_both_have_the_same_tables(page: str) -> None:
    english, chinese = (
        [line.strip("|").split(" | ") for line in re.findall(r"(?m)^\|.+\|$", prose(text))] for text in texts(page)
    )
    assert [len(row) for row in english] == [len(row) for row in chinese]
    for one, other in zip(english, chinese, strict=True):
        assert re.findall("`[^`]+`", one[0]) == re.findall("`[^`]+`", other[0])


def test_each_links_to_the_other_at_the_top(page: str) -> None:
    name = page.rpartition("/")[2]
    english, chinese = (text.splitlines()[2] for text in texts(page))
    assert english == f"English | [简体中文]({name}.zh-CN.md)"
    assert chinese == f"[English]({name}.md) | 简体中文"
