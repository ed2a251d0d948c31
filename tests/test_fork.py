"""docs/fork.md: its own network, own stage and lines of plain torch work as the page shows them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stages import dataset, models, network
from stages.columns import Columns
from stages.models import Blueprint
from stages.tabular import Tabular
from tests.conftest import PROJECT, Copy
from tests.markdown import blocks

PAGE = PROJECT / "docs/fork.md"
(SAVE,), NETWORK, (STAGE,), (ELSEWHERE,) = (
    [block.text for block in blocks(PAGE, "python") if block.section == section]
    for section in ("Your own points", "Your own network", "Your own stage", "Use the model elsewhere")
)
SECTION, ENTRY, IMPORTANCE = (block.text for block in blocks(PAGE, "yaml"))
STRUCTURE = "no_modules or each_stage or each_folder or no_stage or sections or each_file or params_of or mirror or schema"


def replace_in(path: Path, pattern: str, text: str) -> None:
    """Replace the one place that a pattern matches."""
    replaced, count = re.subn(pattern, lambda _: text, path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert count == 1
    path.write_text(replaced, encoding="utf-8")


def fork_network(copy: Copy) -> None:
    """Put the network of the page into stages/network.py and its params into params.yaml."""
    schema, net, build = NETWORK
    path = copy.path / "stages/network.py"
    replace_in(path, r"class Network\(Section\):.*?(?=\n\nclass Net\()", schema)
    replace_in(path, r"class Net\(nn.Module\):.*?(?=\n\n@torch.no_grad)", net)
    replace_in(path, r"STYLES = .*", build)
    for params in ("params.yaml", "tests/params.yaml"):
        replace_in(copy.path / params, r"network:.*?\n(?=\n)", SECTION)


@pytest.mark.parametrize("standardize", [False, True])
def test_the_network_of_the_page_trains_and_is_restored_and_its_params_reach_it(copy: Copy, standardize: bool) -> None:
    fork_network(copy)
    copy.set(train__epochs=20, train__learning_rate=0.05)
    if standardize:
        replace_in(copy.path / "params.yaml", "  dropout: 0.1\n", "  dropout: 0.1\n  standardize: true\n")
    copy.repro()
    assert json.loads(copy.read("data/metrics.json"))["max_abs_difference"] == 0
    state = torch.load(copy.path / "data/net_params.pkl", weights_only=True)
    assert sum(name.endswith("weight") for name in state) == 4
    load = "from stages import models; print(models.load('data/net.pkl'))"
    if standardize:
        printed = copy.run("python", "-c", load)
        assert printed.count("Dropout(p=0.1") == 3
    else:
        assert "does not store network.depth, network.dropout" in copy.run("python", "-c", load, status=1)
    copy.set(network__depth=2)
    assert copy.repro() == ["train", "plot", "evaluate"]


def test_the_stage_of_the_page_runs_and_passes_the_structural_tests_before_git_knows_it(copy: Copy) -> None:
    folder = copy.path / "stages/importance"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "stage.py").write_text(STAGE, encoding="utf-8")
    (copy.path / "stages/scratch").mkdir()  # a folder that has nothing to do with the project
    (copy.path / "stages/scratch/notes.py").touch()
    (copy.path / "stages/scratch/__init__.py").touch()
    entry = "".join(f"  {line}" if line.strip() else line for line in ENTRY.splitlines(keepends=True))
    replace_in(copy.path / "dvc.yaml", r"(?=\nartifacts:)", f"\n{entry}")
    for name in ("params.yaml", "tests/params.yaml"):
        with (copy.path / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{IMPORTANCE}")
    replace_in(copy.path / "stages/runtime/params.py", r"(?<=SECTIONS = \{)", '"importance", ')
    copy.run("python", "-m", "tools.params_schema")
    assert copy.repro()[-1] == "importance"
    assert json.loads(copy.read("data/importance.json")).keys() == {"x"}
    told = copy.run("python", "-m", "pytest", "-q", "-n0", "-m", "not slow", "-k", STRUCTURE, "tests/test_pipeline.py")
    assert re.search(r"\d+ passed", told)


def run_plain(lines: str, folder: Path) -> None:
    """Run lines of plain torch in a folder where the project is not."""
    subprocess.run([sys.executable, "-c", f"import torch\n{lines}"], cwd=folder, check=True)


def test_the_lines_of_plain_torch_save_points_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run_plain(f"x, y = torch.rand(5, 2), torch.rand(5, 1)\n{SAVE}", tmp_path)
    assert dataset.read(str(tmp_path / "data/train.pt")).x.shape == (5, 2)


def test_the_lines_of_plain_torch_predict_what_the_model_predicts(tmp_path: Path) -> None:
    columns = Columns(features=["sex"], targets=["a", "b", "c"], categories={"sex": ["f", "m"]})
    net = Blueprint(network.Network(style="module", hidden=10), 2, 3, columns).build(seed=1)
    assert isinstance(net, Tabular)
    x = 100 * torch.rand(20, 2)
    net.fit(x, 1000 * torch.rand(20, 3))
    models.save_params(str(tmp_path / "net_params.pkl"), net)
    torch.save(x, tmp_path / "x.pt")
    run_plain(f"x = torch.load('x.pt', weights_only=True)\n{ELSEWHERE}torch.save(y.float(), 'y.pt')", tmp_path)
    y = torch.load(tmp_path / "y.pt", weights_only=True)
    torch.testing.assert_close(y, network.predict(net, x))
