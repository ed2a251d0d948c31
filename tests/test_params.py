import math
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml

from stages import params
from stages.errors import UserError
from stages.plot.stage import Params as PlotParams
from stages.train.stage import Params as TrainParams
from tests.conftest import PROJECT

TEXT = (PROJECT / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)


def edited(old: str, new: str) -> bytes:
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new).encode()


def faults(tmp_path: Path, content: bytes, schema: type = TrainParams) -> list[str]:
    """Return what is said of a params.yaml with this content, a line a fault."""
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        params.check("params.yaml", load_named(path), schema)
    return str(caught.value).splitlines()


def load_named(path: Path) -> dict[str, Any]:
    try:
        return params.load(str(path))
    except UserError as error:
        raise UserError(str(error).replace(str(path), "params.yaml")) from error


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  epochs: 200", "  # epochs", "train.epochs: is missing"),
        ("  epochs: 200", "  epochs: ", "train.epochs: must be a valid integer, got None"),
        ("  epochs: 200", "  epochs: -3", "train.epochs: must be greater than 0, got -3"),
        ("  epochs: 200", "  epochs: 2147483648", "train.epochs: must be less than 2147483648, got 2147483648"),
        ("  epochs: 200", "  epochs: '200'", "train.epochs: must be a valid integer, got '200'"),
        ("  epochs: 200", "  epochs: 200.0", "train.epochs: must be a valid integer, got 200.0"),
        ("  epochs: 200", "  epochs: true", "train.epochs: must be a valid integer, got True"),
        ("  epochs: 200", "  epochs: [200]", "train.epochs: must be a valid integer, got [200]"),
        (
            "  epochs: 200",
            "  epochs: 2024-01-01",
            "train.epochs: must be a valid integer, got datetime.date(2024, 1, 1)",
        ),
        ("  epochs: 200", "  epochs: 200\n  epoch: 5", "train.epoch: is not a known key, got 5"),
        ("  learning_rate: 0.2", "  learning_rate: .nan", "train.learning_rate: must be a finite number, got nan"),
        ("  learning_rate: 0.2", "  learning_rate: -.inf", "train.learning_rate: must be a finite number, got -inf"),
        ("  learning_rate: 0.2", "  learning_rate: 0", "train.learning_rate: must be greater than 0, got 0"),
        ("  learning_rate: 0.2", "  learning_rate: 1.0.0", "train.learning_rate: must be a valid number, got '1.0.0'"),
        (
            "  device: cpu",
            "  device: gpu",
            "train.device: must match pattern '^(cpu|cuda(:[0-9]+)?|mps|auto)$', got 'gpu'",
        ),
        ("  style: module", "  style: modul", "network.style: must be 'module' or 'sequential', got 'modul'"),
        ("kernels: portable", "kernels: fast", "kernels: must be 'portable' or 'native', got 'fast'"),
        ("kernels: portable", "kernel: portable", "kernels: is missing"),
        ("  optimizer_options: {}", "  optimizer_options: 3", "train.optimizer_options: must be a mapping, got 3"),
        ("network: ", "networks: ", "network: is missing"),
        ("network: ", "network: 3\nfoo: ", "network: must be a mapping, got 3"),
        ("network: ", "extra: 1\nnetwork: ", "extra: is not a known key, got 1"),
    ],
)
def test_each_fault_is_told_in_a_line_with_its_place_rule_and_value(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    told = faults(tmp_path, edited(old, new))
    assert f"params.yaml: {message}" in told
    assert len(told) <= 2  # a key by another name is both missing and unknown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a mapping of sections, got None"),
        (b"- 1\n- 2\n", "must be a mapping of sections, got [1, 2]"),
        (b"train: {epochs: 1", "not YAML in UTF-8: "),
        (b"\ttrain: 1", "not YAML in UTF-8: "),
        (b"train: 1\ntrain: 2\n", "found duplicate key"),
        (TEXT.encode("utf-16"), "not YAML in UTF-8: "),
        (b"train: caf\xe9\n", "not YAML in UTF-8: "),
        (b"[" * 10_000, "not YAML in UTF-8: "),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (told,) = faults(tmp_path, content)
    assert told.startswith("params.yaml: ")
    assert message in told


def test_a_missing_file_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match="^nowhere.yaml: cannot be read: No such file or directory$"):
        params.load("nowhere.yaml")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = edited("  epochs: 200", "  epochs: 0").replace(b"hidden: 10", b"hidden: x").replace(b"loss: ", b"los: ")
    assert faults(tmp_path, text) == [
        "params.yaml: network.hidden: must be a valid integer, got 'x'",
        "params.yaml: train.epochs: must be greater than 0, got 0",
        "params.yaml: train.loss: is missing",
        "params.yaml: train.los: is not a known key, got 'MSELoss'",
    ]


def test_a_stage_reads_its_own_sections_alone(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(edited("  epochs: 200", "  epochs: 0"))
    document = params.load(str(tmp_path / "params.yaml"))
    assert params.check("params.yaml", document, PlotParams).plot.dpi == 100


@pytest.mark.parametrize(
    "number",
    [
        "1e-05",
        "1e-5",
        "0.5",
        "010",
        "1_000",
        "12",
        "0x10",
        "0o10",
        "+1",
        "1.",
        "12:30",
        "yes",
        "9007199254740992",
        "9007199254740993",
        "9" * 400,
        str(2**1100),
    ],
)
def test_a_number_is_what_dvc_records_or_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(edited("learning_rate: 0.2", f"learning_rate: {number}"))
    recorded = load_yaml(str(path))["train"]["learning_rate"]
    try:
        read = params.check("params.yaml", params.load(str(path)), TrainParams).train.learning_rate
    except UserError as error:
        assert "train.learning_rate: must be a " in str(error)
        assert not isinstance(recorded, float)
    else:
        assert read == recorded


def test_a_float_as_dvc_writes_it_is_a_float(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(edited("learning_rate: 0.2", "learning_rate: 1e-05"))
    read = params.check("params.yaml", params.load(str(tmp_path / "params.yaml")), TrainParams)
    assert math.isclose(read.train.learning_rate, 0.00001)


def test_the_ends_of_the_curve_must_be_in_order(tmp_path: Path) -> None:
    from stages.generate.stage import Params

    told = faults(tmp_path, edited("  high: 1 ", "  high: -1 "), Params)
    assert told == ["params.yaml: generate.high: must be greater than generate.low (-1.0), got -1"]
