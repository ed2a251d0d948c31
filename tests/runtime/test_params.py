import inspect
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from dvc.utils.serialize import dump_yaml, load_yaml, modify_yaml

from stages.generate.stage import Params as GenerateParams
from stages.plot.stage import Params as PlotParams
from stages.runtime import params
from stages.runtime.errors import UserError
from stages.runtime.params import StageParams
from stages.train.optim import OptimizerName
from stages.train.stage import Params as TrainParams
from tests.conftest import LESSON, PROJECT, links, posix_errors
from tools import params_schema

TEXT = LESSON.read_text(encoding="utf-8")


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
        (
            "  epochs: 200",
            "  epochs: 200\n  epoch: 5",
            "train.epoch: is not a known key, got 5: did you mean 'epochs'?",
        ),
        ("  learning_rate: 0.2", "  learning_rate: .nan", "train.learning_rate: must be a finite number, got nan"),
        ("  learning_rate: 0.2", "  learning_rate: -.inf", "train.learning_rate: must be a finite number, got -inf"),
        ("  learning_rate: 0.2", "  learning_rate: 0", "train.learning_rate: must be greater than 0, got 0"),
        ("  learning_rate: 0.2", "  learning_rate: 1.0.0", "train.learning_rate: must be a valid number, got '1.0.0'"),
        (
            "  device: cpu",
            "  device: gpu",
            "train.device: must be cpu, cuda, cuda:N, mps or auto, got 'gpu'",
        ),
        (
            "  style: module",
            "  style: modul",
            "network.style: must be 'module' or 'sequential', got 'modul': did you mean 'module'?",
        ),
        ("kernels: portable", "kernels: fast", "kernels: must be 'portable' or 'native', got 'fast'"),
        (
            "kernels: portable",
            "kernels: compiled",
            "kernels: must be 'portable' or 'native' (for compiled steps, set train.steps to compiled), got 'compiled'",
        ),
        ("  seed: 11", "  seed: 11\n  steps: fast", "train.steps: must be 'eager', 'compiled' or 'auto', got 'fast'"),
        ("kernels: portable", "kernel: portable", "kernels: is missing"),
        ("  optimizer_options: {}", "  optimizer_options: 3", "train.optimizer_options: must be a mapping, got 3"),
        ("network: ", "networks: ", "network: is missing"),
        ("network: ", "network: 3\nfoo: ", "network: must be a mapping, got 3"),
        ("network: ", "plots: 1\nnetwork: ", "plots: is not a known key, got 1: did you mean 'plot'?"),
        ("network: ", "extra: 1\nnetwork: ", "extra: is not a known key, got 1"),
    ],
)
def test_each_fault_is_reported_in_a_line_with_its_place_rule_and_value(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    told = faults(tmp_path, edited(old, new))
    assert f"params.yaml: {message}" in told
    assert len(told) <= 2  # a key by another name is both missing and unknown


@pytest.mark.parametrize(
    ("value", "fault"),
    [("tabel", "must be 'curve' or 'table', got 'tabel': did you mean 'table'?"), (None, "is missing")],
)
def test_a_section_whose_kind_is_unknown_says_which_key_tells_it(value: str | None, fault: str) -> None:
    document = with_value("generate.source", value)
    if value is None:
        del document["generate"]["source"]
    with pytest.raises(UserError) as raised:
        params.check("params.yaml", document, GenerateParams)
    assert str(raised.value) == f"params.yaml: generate.source: {fault}"


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("generate.points", 10**12),
        ("generate.test_points", 10**12),
        ("generate.seed", 2**31 - 1),
        ("network.hidden", 10**6),
        ("train.epochs", 2**31 - 1),
        ("train.batch_size", 10**12),
        ("train.micro_batch_size", 10**12),
        ("train.snapshot_every", 2**31 - 1),
        ("train.seed", 2**32 - 1),
        ("train.optimizer_options.max_iter", 1000),
        ("train.optimizer_options.max_eval", 1000),
        ("train.optimizer_options.history_size", 1000),
        ("plot.dpi", 600),
        ("plot.max_frames", 1000),
    ],
)
def test_each_integer_has_a_most_and_more_is_reported_whatever_its_size(name: str, most: int) -> None:
    schemas: dict[str, type[StageParams]] = {"generate": GenerateParams, "plot": PlotParams}
    schema = schemas.get(name.split(".")[0], TrainParams)
    document = with_value(name, most)
    document["train"]["snapshot_every"] = 2**31 - 1  # or else so many epochs are too many snapshots
    params.check("params.yaml", document, schema)
    for more in (most + 1, 2**61, 2**63, 2**64, 10**20, int("f" * 5000, 16)):
        with pytest.raises(
            UserError, match=rf"^params.yaml: {name}: must be less than [^\n]*, got [0-9a-fx.]*$"
        ) as told:
            params.check("params.yaml", with_value(name, more), schema)
        assert len(str(told.value)) < 150


def with_value(name: str, value: Any) -> dict[str, Any]:
    """Return the lesson's params with one changed: `with_value("train.epochs", 3)`."""
    document = params.load(str(LESSON))
    *sections, key = name.split(".")
    section = document
    for step in sections:
        section = section[step]
    section[key] = value
    return document


def test_the_most_points_times_the_most_neurons_are_bytes_that_64_bits_count() -> None:
    sections = json.loads(params_schema.text())["$defs"]
    points, hidden = (
        sections[section]["properties"][key]["maximum"] for section, key in [("Curve", "points"), ("Network", "hidden")]
    )
    assert 4 * points * hidden < 2**63


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_option_of_every_optimizer_can_have_its_default(name: str) -> None:
    signature = inspect.signature(getattr(torch.optim, name)).parameters.values()
    options = {each.name: each.default for each in signature if each.name not in ("params", "lr")}
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    read = params.check("params.yaml", with_value("train.optimizer_options", options), TrainParams)
    read_options = read.train.optimizer_options.model_dump(exclude_unset=True)
    assert read_options == options
    assert all(type(value) is type(options[key]) for key, value in read_options.items())


VALUES = "must be null, a boolean, a number within ±1e15, a short text, or a list of these"
NAMES = "must be a name of at most 50 letters, digits and _"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{momentum: 1e999}", f"momentum: {VALUES}, got inf"),
        ("{momentum: .nan}", f"momentum: {VALUES}, got nan"),
        ("{betas: [0.9, .inf]}", f"betas: {VALUES}, got [0.9, inf]"),
        ("{lr_decay: 1" + "0" * 400 + "}", f"lr_decay: {VALUES}, got 0x1b4ec7f91973ff3cb1...00000000000000000000"),
        ("{betas: [[0.9]]}", f"betas: {VALUES}, got [[0.9]]"),
        ("{betas: {a: 0.9}}", f"betas: {VALUES}, got {{'a': 0.9}}"),
        ("{foreach: 2024-01-01}", f"foreach: {VALUES}, got datetime.date(2024, 1, 1)"),
        ("{foreach: " + "x" * 1000 + "}", f"foreach: {VALUES}, got 'xxxxxxxxxxxx...xxxxxxxxxxxxx'"),
        (r'{foreach: "\e[31m"}', rf"foreach: {VALUES}, got '\x1b[31m'"),
        (r'{"\e[31m": 1}', rf"\x1b[31m: {NAMES}, got '\x1b[31m'"),
        (r'{"a\nb": 1}', rf"a\nb: {NAMES}, got 'a\nb'"),
        ("{'[key]': 1}", f"[key]: {NAMES}, got '[key]'"),
        ("{5: 1}", "5: is not a known key, got 5"),
        ("{null: 1}", "None: is not a known key, got None"),
        ("{history_size: 0}", "history_size: must be greater than 0, got 0"),
        ("{history_size: 5.0}", "history_size: must be a valid integer, got 5.0"),
        ("{max_iter: true}", "max_iter: must be a valid integer, got True"),
    ],
)
def test_options_that_no_optimizer_has_are_reported_in_a_line(tmp_path: Path, options: str, message: str) -> None:
    told = faults(tmp_path, edited("optimizer_options: {}", f"optimizer_options: {options}"))
    assert told == [f"params.yaml: train.optimizer_options.{message}"]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (r'"\e[31mred"', r"\x1b[31mred"),
        (r'"two\nlines"', r"two\nlines"),
        (r'"\u202eleft"', r"\u202eleft"),
        (r'"\u2028"', r"\u2028"),
        ("größe", "größe"),
        ("k" * 1000, "k" * 200 + "..."),
        ("5", "5"),
        ('"[key]"', "[key]"),
    ],
)
def test_a_key_is_reported_in_one_line_without_escapes_for_the_terminal(tmp_path: Path, key: str, told: str) -> None:
    for place, before in [("network:", ""), ("  hidden:", "network.")]:
        indent = " " * (len(place) - len(place.lstrip()))
        (fault,) = faults(tmp_path, edited(place, f"{indent}? {key}\n{indent}: 1\n{place}"))
        assert fault.startswith(f"params.yaml: {before}{told}: is not a known key, got ")
        assert fault.isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a mapping of sections, got None"),
        (b"- 1\n- 2\n", "must be a mapping of sections, got [1, 2]"),
        (b"train: {epochs: 1", "line 2: while parsing a flow mapping, "),
        (b"a:\n\ttrain: 1", "line 2: while scanning for the next token, found character "),
        (TEXT.encode("utf-16"), "is not valid YAML in UTF-8: 'utf-8' codec can't decode byte 0xff in position 0: "),
        (b"train: caf\xe9\n", "is not valid YAML in UTF-8: 'utf-8' codec can't decode byte 0xe9 in position 10: "),
        (b"train: \x00\n", "is not valid YAML in UTF-8: unacceptable character #x0000: "),
        (b"train: " + b"9" * 5000, "is not valid YAML in UTF-8: Exceeds the limit "),
        (b"a: 1\n---\nb: 2\n", "line 2: expected a single document in the stream, but found another document"),
        (b"train: 1\ntrain: 2\n", "line 2: found duplicate key 'train'"),
        (b"a: 1\n1: 2\ntrue: 3\n", "line 3: found duplicate key True"),
        (b'"\\e[31m": 1\n"\\e[31m": 2\n', r"line 2: found duplicate key '\x1b[31m'"),
        (b"a: 1\n[a]: 2\n", "line 2: while constructing a mapping, found unhashable key"),
        (b"a: 1\nb: !!int '2'\n", "line 2: tags are not allowed, got tag:yaml.org,2002:int"),
        (b"train: !!python/object:os.system x\n", "line 1: tags are not allowed, got tag:yaml.org,2002:python/"),
        (b"%YAML 1.1\n---\na: yes\n", "line 1: directives such as %YAML are not allowed"),
        (b"%TAG ! tag:example.com,2000:\n---\na: 1\n", "line 1: directives such as %YAML are not allowed"),
        (b"a: &a [x]\nb: [*a]\n", "line 1: anchors and aliases are not allowed: write out the value, got a"),
        (b"a: 1\nb: {<<: {a: 2}}\n", "line 2: merge keys are not allowed: write out the values, got <<"),
        (b"a: 1\nb: [a: 1]\n", "line 2: a mapping in a list must have braces"),
        (b'a: 1\nb: {"c":}\n', "line 2: a colon must be followed by a space"),
        ("a: 1\nb:\u2028\nc: 2\n".encode(), r"line 2: found the character '\u2028'"),
        (b"a: " + b"[" * 10_000, "line 1: must have at most 10 levels of nesting"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (fault,) = faults(tmp_path, content)
    assert fault.startswith(f"params.yaml: {message}")


@posix_errors
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (Path.mkdir, "Is a directory"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "Not a regular file", marks=links),
        pytest.param(
            lambda path: os.mkfifo(path),
            "Not a regular file",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names"),
        ),
    ],
)
def test_a_path_that_is_not_a_file_is_reported_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "params.yaml"
    make(path)
    with pytest.raises(UserError, match=f"^{path}: cannot be read: {message}$"):
        params.load(str(path))


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    text = edited("  epochs: 200", "  epochs: 0").replace(b"hidden: 10", b"hidden: x").replace(b"loss: ", b"los: ")
    assert faults(tmp_path, text) == [
        "params.yaml: network.hidden: must be a valid integer, got 'x'",
        "params.yaml: train.epochs: must be greater than 0, got 0",
        "params.yaml: train.loss: is missing",
        "params.yaml: train.los: is not a known key, got 'MSELoss': did you mean 'loss'?",
    ]


def test_a_name_that_is_nearly_right_is_suggested_and_a_long_list_of_names_is_cut(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, edited("  optimizer: SGD", "  optimizer: adm"))
    assert fault.startswith("params.yaml: train.optimizer: must be 'ASGD', 'Adadelta', ")
    assert fault.endswith(" others, got 'adm': did you mean 'Adam'?")
    assert len(fault) < 220
    (fault,) = faults(tmp_path, edited("  loss: MSELoss", "  loss: mseloss"))
    names = "'auto', 'MSELoss', 'L1Loss', 'SmoothL1Loss', 'HuberLoss' or 'CrossEntropyLoss'"
    assert fault == f"params.yaml: train.loss: must be {names}, got 'mseloss': did you mean 'MSELoss'?"


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1e-05),
        ("learning_rate", 1e22),
        ("learning_rate", 2.5e-308),
        (
            "optimizer_options",
            {"eps": 1e-05, "betas": [0.9, 1e-16], "t0": 1e6, "weight_decay": -1e-20, "maximize": True},
        ),
        ("optimizer_options", {"adjust_lr_fn": "1e5", "line_search_fn": "null", "a": "010", "b": "yes", "c": "1_0"}),
        ("launcher", "torchrun --standalone --nproc-per-node 2"),
        ("launcher", "'quoted' \"twice\" # 1 \\ größe\n"),
        ("batch_size", 7),
    ],
)
def test_what_dvc_writes_is_read_as_what_it_was(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    with modify_yaml(str(path)) as document:  # as `dvc exp run -S` does
        document["train"][name] = value
    assert in_train(path, name) == value
    dump_yaml(str(path), load_yaml(str(path)))  # as in dvc.lock
    assert in_train(path, name) == value


def in_train(path: Path, name: str) -> Any:
    read = params.check("params.yaml", params.load(str(path)), TrainParams)
    return read.model_dump(exclude_unset=True)["train"][name]


def test_the_ends_of_the_curve_must_be_in_order(tmp_path: Path) -> None:
    told = faults(tmp_path, edited("  high: 1 ", "  high: -1 "), GenerateParams)
    assert told == ["params.yaml: generate.high: must be greater than generate.low (-1.0), got -1"]


def test_epochs_without_end_do_not_give_snapshots_without_end(tmp_path: Path) -> None:
    told = faults(tmp_path, edited("epochs: 200 ", "epochs: 10000001 "))
    assert told == [
        "params.yaml: train.snapshot_every: must be at least a millionth of train.epochs (10000001), got 10"
    ]
