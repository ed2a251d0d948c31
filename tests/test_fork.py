"""docs/fork.md: its own network, own stage and lines of plain torch work as the page shows them."""

import json
import re
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import dataset, models, network
from stages.columns import Category, Columns, Feature, Number
from stages.models import Blueprint
from stages.runtime.run import PORTABLE
from stages.tabular import Tabular
from tests.conftest import ENVIRONMENT, PROJECT, Copy
from tests.forks import start
from tests.markdown import blocks

PAGE = PROJECT / "docs/fork.md"
(SAVE,), NETWORK, (STAGE,), ELSEWHERE, (SERVICE,) = (
    [block.text for block in blocks(PAGE, "python") if block.section == section]
    for section in ("Your own points", "Your own network", "Your own stage", "Use the model elsewhere", "A service")
)
SECTION, ENTRY, IMPORTANCE = (block.text for block in blocks(PAGE, "yaml"))
STRUCTURE = (
    "no_modules or each_stage or each_folder or no_stage or sections or each_file or params_of or mirror or schema"
)


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


def test_the_network_of_the_page_trains_and_is_restored_and_its_params_reach_it(done: Copy) -> None:
    fork_network(done)
    done.set(train__epochs=20, train__learning_rate=0.05)
    retrain(done)
    state = torch.load(done.path / "data/net_params.pkl", weights_only=True)
    assert sum(name.endswith("weight") for name in state) == 4
    load = "from stages import models; print(models.load('data/net.pkl'))"
    assert "does not store network.depth, network.dropout" in done.run("python", "-c", load, status=1)

    done.set(network__depth=2, network__standardize=True)
    retrain(done)
    assert done.run("python", "-c", load).count("Dropout(p=0.1") == 2


def retrain(copy: Copy) -> None:
    """Run the stages that an edit of the network makes stale."""
    assert json.loads(copy.run("dvc", "status", "--json")).keys() == {"train", "evaluate"}
    copy.rerun("train", "plot", "evaluate")
    assert json.loads(copy.read("data/metrics.json"))["max_abs_difference"] == 0


def test_the_stage_of_the_page_runs_and_passes_the_structural_tests_before_git_knows_it(done: Copy) -> None:
    folder = done.path / "stages/importance"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "stage.py").write_text(STAGE, encoding="utf-8")
    (done.path / "stages/scratch").mkdir()  # a folder that has nothing to do with the project
    (done.path / "stages/scratch/notes.py").touch()
    (done.path / "stages/scratch/__init__.py").touch()
    entry = "".join(f"  {line}" if line.strip() else line for line in ENTRY.splitlines(keepends=True))
    replace_in(done.path / "dvc.yaml", r"(?=\nartifacts:)", f"\n{entry}")
    for name in ("params.yaml", "tests/params.yaml"):
        with (done.path / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{IMPORTANCE}")
    replace_in(done.path / "stages/runtime/params.py", r"(?<=SECTIONS = \{)", '"importance", ')
    done.run("python", "-m", "tools.params_schema")
    assert done.repro("--single-item", "importance") == ["importance"]
    assert json.loads(done.read("data/importance.json")).keys() == {"x"}
    told = done.run("python", "-m", "pytest", "-q", "-n0", "-m", "not slow", "-k", STRUCTURE, "tests/test_pipeline.py")
    assert re.search(r"\d+ passed", told)


def run_plain(lines: str, folder: Path) -> None:
    """Run lines of plain torch in a folder where the project is not."""
    process = start(folder, ENVIRONMENT, "python", "-c", f"import torch\n{lines}")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output


def test_the_lines_of_plain_torch_save_points_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run_plain(f"x, y = torch.rand(5, 2), torch.rand(5, 1)\n{SAVE}", tmp_path)
    assert dataset.read(str(tmp_path / "data/train.pt")).x.shape == (5, 2)


@pytest.mark.parametrize(("networks", "lines"), [*zip((1, 10), ELSEWHERE, strict=True)], ids=("one", "ten"))
def test_the_lines_of_plain_torch_predict_what_the_model_predicts(networks: int, lines: str, tmp_path: Path) -> None:
    features: list[Feature] = [Category(name="sex", levels=["f", "m"]), Number(name="age", low=20.0, high=60.0)]
    columns = Columns(features=features, targets=[Number(name=name) for name in "abc"])
    net = Blueprint(network.Network(style="module", hidden=10), 3, 3, columns, networks).build(seed=1)
    assert isinstance(net, Tabular)
    x = 100 * torch.rand(20, 3)
    x[0, 2] = 1e6
    net.fit(x[1:], 1000 * torch.rand(19, 3))
    models.save_params(str(tmp_path / "net_params.pkl"), net)
    torch.save(x, tmp_path / "x.pt")
    run_plain(f"x = torch.load('x.pt', weights_only=True)\n{lines}torch.save(y.float(), 'y.pt')", tmp_path)
    y = torch.load(tmp_path / "y.pt", weights_only=True)
    torch.testing.assert_close(y, network.predict(net, x))


def test_the_service_of_the_page_answers_from_another_folder(tmp_path: Path) -> None:
    features: list[Feature] = [Category(name="sex", levels=["f", "m"]), Number(name="age", low=20.0, high=60.0)]
    columns = Columns(features=features, targets=[Number(name="height")])
    net = Blueprint(network.Network(style="module", hidden=10), 3, 1, columns).build(seed=1)
    assert isinstance(net, Tabular)
    models.save_net(str(tmp_path / "net.pkl"), net)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    (tmp_path / "service.py").write_text(SERVICE.replace("8000", str(port)), encoding="utf-8")
    environment = ENVIRONMENT | PORTABLE | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([sys.executable, "service.py"], cwd=tmp_path, env=environment) as service:
        try:
            rows = [{"sex": "f", "age": 33}, {"sex": "new", "age": None}, {"sex": None, "age": 1e300}]
            assert ask(port, json.dumps(rows)) == (200, net.predict(rows).to_pylist())
            assert ask(port, '[{"sex": "f"}]') == (400, "rows must have age, None where a value is missing")
            status, reason = ask(port, "[{")
            assert status == 400
            assert "column 3" in reason
        finally:
            service.terminate()


def ask(port: int, body: str) -> tuple[int, Any]:
    """Return the status and the content of the answer to a request, once the service is there."""
    for _ in range(600):
        connection = HTTPConnection("localhost", port)
        try:
            connection.request("POST", "/", body)
        except ConnectionRefusedError:
            time.sleep(0.1)
            continue
        answer = connection.getresponse()
        return answer.status, json.load(answer)
    raise TimeoutError
