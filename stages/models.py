"""Save a trained network both ways, and restore it from a file that may come from a stranger.

To unpickle is to run what the file says: torch's allow-list keeps out other classes, but not a hook, a `forward` that
shadows the method, or a layer of a billion neurons. So nothing is unpickled that torch.save would not have written for
a network like the one expected: the same records, byte by byte, except for the values of the weights.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.serialization import safe_globals

from stages import files, network
from stages.errors import UserError


def save_net(path: str, net: nn.Module) -> None:
    """Write the whole module: its weights and the name of its class."""
    with files.writing(path) as file:
        torch.save(net, file)


def save_params(path: str, net: nn.Module) -> None:
    """Write the state dict: the weights and their names, nothing else."""
    with files.writing(path) as file:
        torch.save(net.state_dict(), file)


def restore_net(path: str, n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
    """Return the whole module that `save_net` wrote: a network of these sizes, in either style.

    Raises UserError where the file is missing, damaged, or holds anything else; nothing in it has run then.
    """
    expected = _expected(n_feature, n_hidden, n_output)
    with safe_globals([type(module) for net in expected for module in net.modules()]):
        return _load(path, expected)


def restore_params(path: str, style: str, n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
    """Return a network of this style with the parameters that `save_params` wrote, of either style.

    Raises UserError as `restore_net` does.
    """
    expected = _expected(n_feature, n_hidden, n_output)
    net = network.build(style, n_feature, n_hidden, n_output, seed=0)
    net.load_state_dict(_load(path, [net.state_dict() for net in expected]))
    return net


def _expected(n_feature: int, n_hidden: int, n_output: int) -> list[nn.Module]:
    return [network.build(style, n_feature, n_hidden, n_output, seed=0) for style in network.STYLES]


def _load(path: str, expected: Sequence[object]) -> Any:
    """Return what torch.save wrote to path, if it is like one of these objects except for the values of its tensors."""
    archives = [_saved(each) for each in expected]
    longest = max(map(len, archives)) + 4096  # the archive's name is part of the name of each record
    with files.reading(path, "a model of this project"):
        with Path(path).open("rb") as file:
            content = file.read(longest + 1)
        if len(content) > longest:
            raise ValueError
        records = _records(content)
        values = b"".join(data for name, data in records.items() if name.startswith("data/"))
        if not np.isfinite(np.frombuffer(values, dtype="<f4")).all():
            raise ValueError
    if not any(_alike(records, _records(each)) for each in archives):
        raise UserError(f"{path}: does not hold the network that params.yaml describes: run `dvc repro --force train`")
    # Load what was compared, in an archive of our own: two readers can see two different things in a forged one.
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for name, data in records.items():
            target.writestr(f"archive/{name}", data)
    archive.seek(0)
    return torch.load(archive, map_location="cpu", weights_only=True)


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _records(content: bytes) -> dict[str, bytes]:
    """Return the records of an archive of torch.save by name, without the archive's name; refuse compressed ones."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(content) for entry in entries):
            raise ValueError
        return {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}


def _alike(records: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    values = {name for name in expected if name.startswith("data/")}
    varying = values | {".data/serialization_id"}  # a hash of the values
    return (
        records.keys() == expected.keys()
        and all(len(records[name]) == len(expected[name]) for name in varying)
        and all(records[name] == expected[name] for name in expected.keys() - varying)
    )
