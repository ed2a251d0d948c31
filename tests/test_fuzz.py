"""Properties that hold for any input. FUZZ sets the number of cases: FUZZ=10000 python -m pytest tests -k fuzz."""

import os
from pathlib import Path

import pytest
import torch
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import dataset, params
from stages.dataset import Dataset
from stages.errors import UserError
from stages.generate.stage import Params as GenerateParams
from stages.plot.stage import Params as PlotParams
from stages.train.stage import Params as TrainParams
from tests.conftest import PROJECT

CASES = settings(
    max_examples=int(os.environ.get("FUZZ", "200")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LINES = (PROJECT / "params.yaml").read_text(encoding="utf-8").splitlines()
PLACES = [number for number, line in enumerate(LINES) if ":" in line and not line.startswith("#")]
ODD = st.sampled_from(
    """1e-5 1e5 .5 5. +3 -0 0x1F 0o17 017 1_000 12:30 yes no on ~ null .inf -.inf .nan 1e999 2024-01-01 !!int !!float
    !!python/object:os.system ! & * &a *a [] {} [1,2] {a:1} '' "" 'a' | > - ? @ ` % # 99999999999999999999 <<""".split()
)
SCALARS = st.one_of(
    ODD,
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=12),
    st.lists(st.sampled_from(["[", "]", "{", "}", ":", ",", "- ", "&a ", "*a", "1", "a", "\n  "]), max_size=12).map(
        "".join
    ),
)


@CASES
@given(place=st.sampled_from(PLACES), value=SCALARS)
def test_fuzz_params_are_what_dvc_records_or_refused(tmp_path: Path, place: int, value: str) -> None:
    path = tmp_path / "params.yaml"
    edited = [*LINES[:place], f"{LINES[place].split(':')[0]}: {value}", *LINES[place + 1 :]]
    path.write_bytes("\n".join(edited).encode("utf-8", "surrogatepass"))
    for schema in (GenerateParams, TrainParams, PlotParams):
        try:
            read = params.check("params.yaml", params.load(str(path)), schema)
        except UserError as error:
            assert all(line.startswith(("params.yaml: ", f"{path}: ")) for line in str(error).split("\n"))
        else:
            recorded = load_yaml(str(path))
            assert read.model_dump() == {name: recorded[name] for name in schema.model_fields}


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
    x, y, _ = dataset.read(str(points))
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
