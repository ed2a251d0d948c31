"""Read what torch.save wrote, possibly for a stranger, and take nothing from it but the values of tensors.

Unpickling runs what the file says: torch's allow-list keeps out other classes, but not a hook, a `forward` that shadows
the method, or a layer of a billion neurons. So a file is read with stand-ins for its classes and without its tensors,
and its parts are compared with those of a network that was built here. Only the values of its tensors are then loaded,
into that network.
"""

import io
import json
import pickletools
import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from stages.runtime import archive
from stages.runtime.errors import printable

BUILT_IN = re.compile(  # what torch.save needs for tensors; torch.load allows more, such as a bytearray of any size
    r"collections OrderedDict|__builtin__ set|torch (\w+Storage|[a-z]\w*)|torch\._utils _rebuild_(tensor_v2|parameter)"
)
ATOMS = ("BINUNICODE", "GLOBAL")  # texts and classes
MAX_PARTS, MAX_NAME, MAX_REPEATED = 100_000, 200, 20  # a pickle that repeats parts in parts can stand for much more
WITHIN = re.compile(r"\b_(modules|parameters|buffers)\.")  # in the names of a module's parts, not of its state dict


class StandIn:
    """Takes the place of an object of any class: it has the object's attributes, and none of its code."""

    def __init__(self, *arguments: Any) -> None:
        """Take what the class would be called with, and do nothing."""


def saved(value: object) -> io.BytesIO:
    """Return the file that torch.save writes for a value."""
    file = io.BytesIO()
    torch.save(value, file)
    return file


def parts(file: BinaryIO, device: str = "meta") -> dict[str, Any]:
    """Return what torch.save wrote, in order, by dotted name, such as `_modules.hidden.in_features`; run none of it.

    What has parts is the name of its class. JSON text also has parts, such as `stored.features`. Tensors on `meta` have
    no values and take no memory. Raises ValueError, or whatever torch.load raises, for what is too large or forged.
    """
    scanned = islice(pickletools.genops(archive.torch_pickle(file)), MAX_PARTS)
    steps = [(opcode.name, argument) for opcode, argument, _ in scanned]
    memo = {place for (made, _), (name, place) in pairwise(steps) if "PUT" in name and made not in ATOMS}
    repeated = [place for name, place in steps if "GET" in name and place in memo]
    unsafe = get_unsafe_globals_in_checkpoint(file)
    names = {f"{argument}" for name, argument in steps if name == "GLOBAL"}
    unknown = [name for name in names if name.replace(" ", ".") not in unsafe and not BUILT_IN.fullmatch(name)]
    if unknown or len(repeated) > MAX_REPEATED or len(steps) == MAX_PARTS:
        raise ValueError
    file.seek(0)
    with safe_globals([(type(name.rpartition(".")[2], (StandIn,), {}), name) for name in unsafe]):
        value = torch.load(file, map_location=device, weights_only=True)
    return dict(islice(_parts("", value), MAX_PARTS))


def match(theirs: dict[str, Any], expected: Sequence[object]) -> tuple[int, str]:
    """Return the index of the object that the parts of a file are most like, and how they differ; "" if they do not.

    The values of tensors may differ.
    """
    has, matches = _described(theirs), []
    for index, ours in enumerate(parts(saved(value)) for value in expected):
        needs, tensors = _described(ours), _tensors(ours | theirs)
        names = [name for name in needs | has if needs.get(name) != has.get(name)]
        difference = ""
        if names:
            found, needed = (printable(texts.get(names[0], "missing")) for texts in (has, needs))
            difference = f"{printable(WITHIN.sub('', names[0])) or 'its class'} is {found} instead of {needed}"
            in_state = [name for name in names if name.startswith("stored.") or name.removesuffix(".dtype") in tensors]
            if not in_state:
                difference += "; its state dict, as in net_params.pkl, still fits"
        matches.append((len(names), index, difference))
    return min(matches)[1:]


def fill(net: nn.Module, named: dict[str, Any]) -> None:
    """Load tensors into a network, by the names of its parts or of its state dict.

    Raises KeyError if one is missing, and ValueError if one is not finite.
    """
    values, state = {WITHIN.sub("", name): value for name, value in named.items()}, net.state_dict()
    state |= {name: values[name] for name in _tensors(state)}
    if not all(value.isfinite().all() for value in _tensors(state).values()):
        raise ValueError
    net.load_state_dict(state)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if len(name) > MAX_NAME:
        raise ValueError
    if isinstance(value, str) and value.startswith('{"'):
        yield from _parts("stored", json.loads(value))
        yield "stored.text", value
    if not isinstance(value, StandIn | dict | list | tuple | set):
        yield name, value
        return
    yield name, "dict" if isinstance(value, dict) else type(value).__name__
    if isinstance(value, list | tuple | set):
        value = dict(enumerate(sorted(value, key=str) if isinstance(value, set) else value))
    named = vars(value) if isinstance(value, StandIn) else value
    for key, part in named.items():
        yield from _parts(f"{name}.{key}" if name else str(key), part)
    if name.endswith("_modules"):  # whose order matters
        yield f"{name}.order", [*named]


def _described(named: dict[str, Any]) -> dict[str, str]:
    """Return what there is to say of each part, by name: of a tensor, all but its values."""
    described: dict[str, str] = {}
    for name, part in named.items():
        if isinstance(part, Tensor):
            described |= {name: f"{tuple(part.shape)}", f"{name}.dtype": f"{part.dtype}"}
            described |= {f"{name}.requires_grad": f"{part.requires_grad}"}
        else:
            described[name] = repr(part)
    return described


def _tensors(named: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}
