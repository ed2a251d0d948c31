"""What a pickle describes; tests/test_models.py has what is said of the files of networks."""

import io
import pickle
import zipfile

import pytest
import torch
from torch import nn

from stages.runtime.pickles import MAX_BYTES, MAX_DEPTH, described


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("archive/data.pkl")


def test_layers_settings_and_shapes_are_described_by_dotted_name() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Dropout(0.2), nn.BatchNorm1d(3)))
    contents = described(pickled(net))
    assert contents[""] == contents["1"] == "Sequential"
    assert contents["1.0.p"] == 0.2
    shapes = {name: shape for name, shape in contents.items() if isinstance(shape, tuple)}
    assert shapes == {name: tuple(values.shape) for name, values in net.state_dict().items()}
    assert {
        name: shape for name, shape in described(pickled(net.state_dict())).items() if shape in shapes.values()
    } == (shapes)


def test_what_would_take_much_memory_is_not_described() -> None:
    deep = b"\x80\x02" + b"X\x01\x00\x00\x00a" + b"ca\nb\n)\x81" * (MAX_DEPTH + 1) + b"."
    with pytest.raises(ValueError):
        described(deep)
    with pytest.raises(ValueError):
        described(pickle.dumps("x" * MAX_BYTES, protocol=2))
