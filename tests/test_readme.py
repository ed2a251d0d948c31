"""The README shows the code as it is."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT


def without_docstrings(path: Path) -> str:
    """Return the source of a module without the docstrings of its functions."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            first, last = node.body[0].lineno - 1, node.body[0].end_lineno or node.body[0].lineno
            lines[first:last] = [""] * (last - first)
    return "\n".join(lines)


def test_the_readme_shows_the_five_steps_as_they_are() -> None:
    shown = (PROJECT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    source = without_docstrings(PROJECT / "stages/train/loop.py")
    source = source[source.index("def backpropagate") :]
    assert [line for line in shown.splitlines() if line] == [line for line in source.splitlines() if line]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *map(str, Path("docs").glob("*.md"))])
def test_links_to_files_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([\w./-]+/[\w./-]*|[\w-]+\.\w+)[#)]", (PROJECT / page).read_text(encoding="utf-8"))
    assert links
    assert all((PROJECT / page).parent.joinpath(link).exists() for link in links)
