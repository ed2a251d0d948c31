"""Save a trained network both ways, and restore it from a file that may come from a stranger.

Unpickling runs what the file says: torch's allow-list keeps out other classes, but not a hook, a `forward` that shadows
the method, or a layer of a billion neurons. So a file is unpickled only if torch.save would have written it for a
network like the expected one: the same records, byte for byte, except for the values of the weights.
"""

import copy
import io
import pickletools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from stages import network
from stages.columns import Columns, unnamed
from stages.runtime import archive, files
from stages.runtime.errors import UserError, counted
from stages.tabular import Tabular

NAME_BYTES = 4096  # that an archive may be longer: its name is part of the name of each record
WHAT = "a model of this project"
Loaded = TypeVar("Loaded", nn.Module, dict[str, Tensor])


class Blueprint(NamedTuple):
    """What a network is built from, besides its style."""

    n_feature: int
    n_hidden: int
    n_output: int
    columns: Columns | None = None  # of a Tabular, which stores them

    def build(self, style: str) -> nn.Module:
        """Return a network like this, with any weights."""
        net = network.build(style, *self[:3], seed=0)
        return Tabular(net, self.columns) if self.columns else net


def save_net(path: str, net: nn.Module) -> None:
    """Write the whole module: its weights and the name of its class."""
    with files.writing(path) as file:
        torch.save(net, file)


def save_params(path: str, net: nn.Module) -> None:
    """Write the state dict: the weights and their names, nothing else."""
    with files.writing(path) as file:
        torch.save(net.state_dict(), file)


def restore_net(path: str, blueprint: Blueprint) -> nn.Module:
    """Return the whole module that `save_net` wrote: a network like this, in either style.

    Raises UserError, before anything in the file has run, if it is missing, damaged, or holds anything else.
    """
    return _load(path, _expected(blueprint), _mismatch(blueprint))


def restore_params(path: str, style: str, blueprint: Blueprint) -> nn.Module:
    """Return a network of this style with the parameters that `save_params` wrote from a network of either style.

    Raises UserError as `restore_net` does.
    """
    net = blueprint.build(style)
    expected = [net.state_dict() for net in _expected(blueprint)]
    net.load_state_dict(_load(path, expected, _mismatch(blueprint)))
    return net


def load(path: str) -> Tabular:
    """Return the network in a net.pkl or net_params.pkl of any sizes and columns; columns without names are x and y.

    It is in evaluation mode, ready to predict.

    Raises UserError as `restore_net` does.
    """
    with files.reading(path, WHAT):
        content = Path(path).read_bytes()
        blueprint = _blueprint(_records(content))
        net, *others = _expected(blueprint)
        either: list[Any] = [net, *others, *(each.state_dict() for each in (net, *others))]
        loaded = _restored(path, content, either, "does not hold a network like that of stages/network.py")
    if isinstance(loaded, nn.Module):
        net = loaded
    else:
        net.load_state_dict(loaded)
    if not isinstance(net, Tabular):
        net = Tabular(net, unnamed(blueprint.n_feature, blueprint.n_output))
    return net.eval()


def check(net: nn.Module, style: str, blueprint: Blueprint, x: Tensor) -> None:
    """Save and restore a network both ways, in memory, so that one that cannot be restored is not trained for hours.

    x is (n, n_feature). Raises UserError if a restored network is refused or predicts otherwise, and what torch.save
    raises where the network cannot be saved.
    """
    path = "stages/network.py"
    changes = "keeps what a new network does not: use parameters and buffers for what changes"
    used = copy.deepcopy(net)
    with torch.no_grad():
        used(x)  # in training mode, which may change it
    expected = _expected(blueprint)
    whole = _restored(path, _saved(used), expected, changes)
    twin = blueprint.build(style)
    twin.load_state_dict(_restored(path, _saved(used.state_dict()), [net.state_dict() for net in expected], changes))
    before = torch.get_rng_state()
    predictions = [network.predict(each, x) for each in (used, whole, twin)]
    drew = not torch.equal(torch.get_rng_state(), before)
    if drew or not all(prediction.equal(predictions[0]) for prediction in predictions):
        raise UserError(
            f"{path}: the network predicts differently once it is restored: use parameters and persistent buffers for "
            "what it needs, and no random numbers in evaluation mode"
        )


def _expected(blueprint: Blueprint) -> list[nn.Module]:
    return [blueprint.build(style) for style in network.STYLES]


def _mismatch(blueprint: Blueprint) -> str:
    """Return the message about a file that holds something else than this network."""
    feature, hidden, output = map(counted, blueprint[:3], ("feature", "hidden neuron", "output"))
    names = ", with the column names of data/train.pt" if blueprint.columns else ""
    return (
        f"does not hold a network of {feature}, {hidden} and {output}{names}: "
        "use the sizes it was trained with, or run `dvc repro --force train`"
    )


def _blueprint(records: dict[str, bytes]) -> Blueprint:
    """Return what the network in these records is built from, without loading any of them.

    Its first two tensors must be the weight and bias of a layer with n_hidden neurons, and its last one the bias of the
    layer that predicts, as in stages/network.py. Raises what reading them raises where there is no such network.
    """
    arguments = (argument for _, argument, _ in pickletools.genops(records["data.pkl"]))
    texts = [text for text in arguments if isinstance(text, str) and text.startswith('{"features"')]
    columns = Columns.model_validate_json(texts[0]) if texts else None
    sizes = [len(records[f"data/{index}"]) // 4 for index in range(sum(name.startswith("data/") for name in records))]
    weight, bias, *_, last = sizes[4 if columns else 0 :]  # after the means and deviations
    blueprint = Blueprint(weight // bias, bias, last, columns)
    if columns and (len(columns.x_names()), len(columns.target_names)) != (blueprint.n_feature, blueprint.n_output):
        raise ValueError
    return blueprint


def _load(path: str, expected: Sequence[Loaded], mismatch: str) -> Loaded:
    """Return what torch.save wrote to path, if it is like one of these objects except for the values of its tensors."""
    with files.reading(path, WHAT):
        with Path(path).open("rb") as file:
            content = file.read(max(len(_saved(each)) for each in expected) + NAME_BYTES + 1)
        return _restored(path, content, expected, mismatch)


def _restored(path: str, content: bytes, expected: Sequence[Loaded], mismatch: str) -> Loaded:
    """Return what torch.save wrote, as `_load` does. Raises UserError, `path: mismatch`, if it is anything else."""
    archives = [_saved(each) for each in expected]
    records = _records(content) if len(content) <= max(map(len, archives)) + NAME_BYTES else {}
    if not any(_alike(records, _records(each)) for each in archives):
        raise UserError(f"{path}: {mismatch}")
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
    if not all(each.isfinite().all() for each in values.values() if isinstance(each, Tensor)):
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
