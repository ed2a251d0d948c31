"""The commands of docs/tutorial.md print what the page says, and draw the picture that it shows."""

import os
import re
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PROJECT, Copy
from tests.markdown import blocks

PAGE = PROJECT / "docs/tutorial.md"
OUTPUT = {  # for each section: words of the text, and the output of the section's commands that they describe
    "1. Data": {"(100, 1)": "torch.Size([100, 1]) torch.Size([100, 1])", "0.0990": "tensor(0.0990)"},
    "2. The network, in both styles": {"True 31": "True 31"},
    "5. Saving, both ways": {
        "3357 and 2461 bytes": r"3357 data/net.pkl",
        "`hidden.weight` to `predict.bias`": "{'hidden.weight': (10, 1), ",
        "stages.network.Net": "stages.network.Net",
    },
    "6. Restoring, both ways, and comparing": {
        "`max_abs_difference` is 0.0": '"max_abs_difference": 0.0',
        "`module True` and `sequential True`": "module True\nsequential True\n",
    },
}


def commands(code: str) -> Iterator[list[str]]:
    """Yield the commands of a block: each of its lines, and the lines that it hands to Python."""
    for program, line in re.findall(r"(?ms)^python - <<'EOF'\n(.*?)^EOF$|^(.+?)$", code):
        yield ["python", "-c", program] if program else ["bash", "-c", line]


@pytest.mark.skipif(os.name == "nt", reason="the page shows the commands of a POSIX shell")
def test_the_commands_print_what_the_page_says(done: Copy) -> None:
    printed: dict[str, str] = {}
    for section, _, code in blocks(PAGE, "sh"):
        output = "".join(done.run(*command) for command in commands(code))
        for line in re.findall(r"^# (.+)", code, re.MULTILINE):
            assert line in output.splitlines()
        printed[section] = printed.get(section, "") + output
    page = PAGE.read_text(encoding="utf-8")
    for section, described in OUTPUT.items():
        text = " ".join(page.split(f"\n## {section}\n")[1].split("\n## ")[0].split())
        for words, output in described.items():
            assert words in text
            assert output in printed[section]
    assert done.run("git", "status", "--porcelain") == ""
    drawn, shown = (
        np.asarray(Image.open(path).convert("RGB"), float)
        for path in (done.path / "restored.png", PROJECT / "docs/restored.png")
    )
    assert drawn.shape == shown.shape
    assert abs(drawn - shown).mean() < 2  # of 255: the same picture, in whatever font
