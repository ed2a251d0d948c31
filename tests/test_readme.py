"""The README shows the code as it is."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT


def bare(source: str) -> list[str]:
    """Return the lines of a module without docstrings, annotations and empty lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first, last = node.body[0].lineno - 1, node.body[0].end_lineno or node.body[0].lineno
            if ast.get_docstring(node) is not None:
                lines[first:last] = [""] * (last - first)
            for each in node.args.args:
                each.annotation = None
            head = " " * node.col_offset + f"def {node.name}({ast.unparse(node.args)}):"
            lines[node.lineno - 1] = head + "".join(lines[node.lineno - 1].partition("  #")[1:])
    return [line for line in lines if line]


def test_the_readme_shows_the_five_steps_as_they_are() -> None:
    shown = (PROJECT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    source = (PROJECT / "stages/train/loop.py").read_text(encoding="utf-8")
    start = source.index("def backpropagate")
    assert [line for line in shown.splitlines() if line] == bare(source[start:])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *map(str, Path("docs").glob("*.md"))])
def test_links_to_files_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([\w./-]+/[\w./-]*|[\w-]+\.\w+)[#)]", (PROJECT / page).read_text(encoding="utf-8"))
    assert links
    assert all((PROJECT / page).parent.joinpath(link).exists() for link in links)
