"""Properties that hold for any input. FUZZ sets the number of cases: FUZZ=10000 python -m pytest tests -k fuzz."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from dvc.utils.serialize import dumps_yaml, load_yaml, loads_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import dataset
from stages.dataset import Dataset
from stages.generate.stage import Params as GenerateParams
from stages.plot.stage import Params as PlotParams
from stages.runtime import params
from stages.runtime.errors import UserError
from stages.train.stage import Params as TrainParams
from tests.conftest import LESSON

CASES = settings(
    max_examples=int(os.environ.get("FUZZ", "60")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LINES = LESSON.read_text(encoding="utf-8").splitlines()
PLACES = [number for number, line in enumerate(LINES) if ":" in line and not line.startswith("#")]
ODD = st.sampled_from(
    """1e-5 1e5 .5 5. +3 -0 0x1F 0o17 017 1_000 12:30 yes no on ~ null .inf -.inf .nan 1e999 2024-01-01 !!int !!float
    !!python/object:os.system ! & * &a *a [] {} [1,2] {a:1} '' "" 'a' | > - ? @ ` % # 99999999999999999999 <<""".split()
)
NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.tuples(st.sampled_from(["0x", "-0x", "0o", "", "-"]), st.sampled_from([18, 310, 5000])).map(
        lambda each: each[0] + "7" * each[1]
    ),
    st.sampled_from([2**exponent + more for exponent in (31, 32, 53, 61, 63, 64, 1100) for more in (-1, 0, 1)]).map(
        str
    ),
    st.tuples(st.integers(), st.integers(-400, 400)).map("{0[0]}e{0[1]}".format),
    st.floats().map(str),
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(max_size=12).map(json.dumps),  # escapes for control characters, which YAML has too
    st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=4).map(json.dumps),
    st.integers(1, 60_000).map("x".__mul__),
)
SCALARS = st.one_of(ODD, NUMBERS, NUMBERS.map(json.dumps), TEXTS)
KEYS = st.one_of(
    st.sampled_from(["momentum", "betas", "max_iter", "history_size", "<<", "[key]", "? a", "!!str a", "&a b", "*a"]),
    SCALARS,
)
NESTED = st.recursive(
    SCALARS,
    lambda values: st.one_of(
        st.lists(values, max_size=3).map(lambda each: f"[{', '.join(each)}]"),
        st.lists(st.tuples(KEYS, values), max_size=3).map(
            lambda each: "{" + ", ".join(f"{key}: {value}" for key, value in each) + "}"
        ),
        st.tuples(st.sampled_from(["!!set ", "!!omap ", "!!pairs ", "!!binary ", "&a "]), values).map("".join),
        st.tuples(values, st.sampled_from([1, 30, 2000])).map(lambda each: "[" * each[1] + each[0] + "]" * each[1]),
    ),
    max_leaves=6,
)
PIECES = st.lists(
    st.sampled_from(["[", "]", "{", "}", ":", ",", "- ", "&a ", "*a", "1", "a", "\n  "]), max_size=12
).map("".join)
PLAIN = re.compile(
    r"^(cannot be read|is not valid YAML in UTF-8|line \d+|.*: (is missing$|is not a known key|must )).*"
)


@CASES
@given(place=st.sampled_from(PLACES), key=st.one_of(st.none(), st.none(), KEYS), value=st.one_of(NESTED, PIECES))
def test_fuzz_params_are_what_dvc_records_or_refused(tmp_path: Path, place: int, key: str | None, value: str) -> None:
    path = tmp_path / "params.yaml"
    was = LINES[place].split(":")[0]
    indent = " " * (len(was) - len(was.lstrip()))
    edited = [*LINES[:place], f"{was if key is None else indent + key}: {value}", *LINES[place + 1 :]]
    path.write_bytes("\n".join(edited).encode("utf-8", "surrogatepass"))
    try:
        document = params.load(str(path))
    except UserError as error:
        assert_plain(error, path)
        return
    recorded = None
    for schema in (GenerateParams, TrainParams, PlotParams):
        try:
            read = params.check("params.yaml", document, schema).model_dump(exclude_unset=True)
        except UserError as error:
            assert_plain(error, path)
        else:
            recorded = recorded or load_yaml(str(path))
            assert read == {name: recorded[name] for name in read}
            assert loads_yaml(dumps_yaml(read)) == read  # from dvc.lock


def assert_plain(error: UserError, path: Path) -> None:
    for line in str(error).replace(str(path), "params.yaml").split("\n"):
        assert line.isprintable()
        assert len(line) < 500
        assert PLAIN.match(line.removeprefix("params.yaml: "))
        assert "pattern" not in line


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("points") / "train.pt"
    dataset.write(str(path), Dataset(torch.rand(50, 2), torch.rand(50, 1)))
    return path


@CASES
@given(
    edits=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), max_size=6),
    cut=st.sampled_from([0, 0, 1, 22, 500]),
)
def test_fuzz_a_dataset_with_mutated_bytes_is_refused_or_as_it_was(
    points: Path, edits: list[tuple[float, int]], cut: int
) -> None:
    content = bytearray(points.read_bytes())
    x, y, *_ = dataset.read(str(points))
    for place, value in edits:
        content[int(place * len(content))] = value
    path = points.with_name("mutated.pt")
    path.write_bytes(content[: len(content) - cut])
    try:
        read = dataset.read(str(path))
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
    else:
        assert torch.equal(read[0], x)
        assert torch.equal(read[1], y)
