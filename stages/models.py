"""Save a trained network both ways, and restore it from a file that may come from a stranger.

Unpickling runs what the file says: torch's allow-list keeps out other classes, but not a hook, a `forward` that shadows
the method, or a layer of a billion neurons. So a file is unpickled only if torch.save would have written it for a
network like the expected one: the same records, byte for byte, except for the values of the weights.
"""

import copy
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from stages import archive, files, network
from stages.errors import UserError, counted

NAME_BYTES = 4096  # that an archive may be longer: its name is part of the name of each record
Sizes = tuple[int, int, int]  # n_feature, n_hidden, n_output
Loaded = TypeVar("Loaded", nn.Module, dict[str, Tensor])


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

    Raises UserError, before anything in the file has run, if it is missing, damaged, or holds anything else.
    """
    sizes = n_feature, n_hidden, n_output
    return _load(path, _expected(sizes), _other_sizes(sizes))


def restore_params(path: str, style: str, n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
    """Return a network of this style with the parameters that `save_params` wrote from a network of either style.

    Raises UserError as `restore_net` does.
    """
    sizes = n_feature, n_hidden, n_output
    net = network.build(style, *sizes, seed=0)
    expected = [net.state_dict() for net in _expected(sizes)]
    net.load_state_dict(_load(path, expected, _other_sizes(sizes)))
    return net


def check(net: nn.Module, style: str, n_hidden: int, x: Tensor, y: Tensor) -> None:
    """Save and restore a network both ways, in memory, so that one that cannot be restored is not trained for hours.

    x is (n, n_feature), y is (n, n_output). Raises UserError if a restored network is refused or predicts otherwise,
    and what torch.save raises where the network cannot be saved.
    """
    path = "stages/network.py"
    changes = "keeps what a new network does not: use parameters and buffers for what changes"
    used, sizes = copy.deepcopy(net), (x.shape[1], n_hidden, y.shape[1])
    with torch.no_grad():
        used(x)  # in training mode, which may change it
    expected = _expected(sizes)
    whole = _restored(path, _saved(used), expected, changes)
    twin = network.build(style, *sizes, seed=0)
    twin.load_state_dict(_restored(path, _saved(used.state_dict()), [net.state_dict() for net in expected], changes))
    before = torch.get_rng_state()
    predictions = [network.predict(each, x) for each in (used, whole, twin)]
    drew = not torch.equal(torch.get_rng_state(), before)
    if drew or not all(prediction.equal(predictions[0]) for prediction in predictions):
        raise UserError(
            f"{path}: the network predicts differently once it is restored: use parameters and persistent buffers for "
            "what it needs, and no random numbers in evaluation mode"
        )


def _expected(sizes: Sizes) -> list[nn.Module]:
    return [network.build(style, *sizes, seed=0) for style in network.STYLES]


def _other_sizes(sizes: Sizes) -> str:
    feature, hidden, output = map(counted, sizes, ("feature", "hidden neuron", "output"))
    return (
        f"does not hold a network of {feature}, {hidden} and {output}: "
        "use the sizes it was trained with, or run `dvc repro --force train`"
    )


def _load(path: str, expected: Sequence[Loaded], otherwise: str) -> Loaded:
    """Return what torch.save wrote to path, if it is like one of these objects except for the values of its tensors."""
    with files.reading(path, "a model of this project"):
        with Path(path).open("rb") as file:
            content = file.read(max(len(_saved(each)) for each in expected) + NAME_BYTES + 1)
        return _restored(path, content, expected, otherwise)


def _restored(path: str, content: bytes, expected: Sequence[Loaded], otherwise: str) -> Loaded:
    """Return what torch.save wrote, as `_load` does. Raises UserError, `path: otherwise`, if it is anything else."""
    archives = [_saved(each) for each in expected]
    records = _records(content) if len(content) <= max(map(len, archives)) + NAME_BYTES else {}
    if not any(_alike(records, _records(each)) for each in archives):
        raise UserError(f"{path}: {otherwise}")
    # Load what was compared, in an archive of our own: two readers can see two different things in a forged one.
    own = io.BytesIO()
    with zipfile.ZipFile(own, "w") as target:
        for name, data in records.items():
            target.writestr(f"archive/{name}", data)
    modules = [module for each in expected if isinstance(each, nn.Module) for module in each.modules()]
    with safe_globals([type(module) for module in modules]):
        own.seek(0)
        if foreign := get_unsafe_globals_in_checkpoint(own):
            raise UserError(
                f"{path}: must hold only modules, got {', '.join(foreign)}: "
                "use modules in stages/network.py, e.g. nn.GELU() instead of F.gelu, then run `dvc repro`"
            )
        own.seek(0)
        loaded: Loaded = torch.load(own, map_location="cpu", weights_only=True)
    values = loaded.state_dict() if isinstance(loaded, nn.Module) else loaded
    if not all(each.isfinite().all() for each in values.values()):
        raise ValueError
    return loaded


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _records(content: bytes) -> dict[str, bytes]:
    """Return the records of an archive that torch.save wrote, by name without the archive's name."""
    with archive.opened(io.BytesIO(content)) as opened:
        return {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}


def _alike(records: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    values = {name for name in expected if name.startswith("data/")}
    varying = values | {".data/serialization_id"}  # a hash of the values
    return (
        records.keys() == expected.keys()
        and all(len(records[name]) == len(expected[name]) for name in varying)
        and all(records[name] == expected[name] for name in expected.keys() - varying)
    )
