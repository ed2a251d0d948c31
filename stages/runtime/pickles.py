"""Read what a pickle describes, without running any of it, to say how a file differs from what is expected."""

import json
import pickletools
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from stages.runtime.errors import printable, short

CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None}
MAX_BYTES, MAX_DEPTH, MAX_NAME = 1 << 22, 20, 100  # of what is described; a pickle of 1 MB may stand for much more


def described(pickle: bytes) -> dict[str, Any]:
    """Return the contents of a network or a state dict that torch.save pickled, in order, by dotted name.

    A layer is the name of its class, a tensor its shape, and a setting of a layer its value: `{"": "Net", "hidden":
    "Linear", "hidden.weight": (10, 1), "hidden.in_features": 1, …}`; what is stored as JSON has names such as
    `stored.features`. What else there is, such as hooks, is left out.
    Raises ValueError, or whatever pickletools raises, for other pickles and for what is no pickle.
    """
    if len(pickle) > MAX_BYTES:
        raise ValueError
    contents: dict[str, Any] = {}
    path: list[str] = []  # from the network to the layer whose state is being read
    values: list[Any] = [None, None]  # those without parts, in order; names of classes and functions have a space
    tensor = -1  # the position of the name of the tensor that is being read
    opcodes = _resolved(pickle)
    for opcode, value in opcodes:
        if opcode == "NEWOBJ":
            path.append(str(values[-2])[:MAX_NAME] if path else "")
            if len(path) > MAX_DEPTH:
                raise ValueError
            contents[".".join(path[1:])] = str(values[-1]).rpartition(".")[2].rpartition(" ")[2]
        elif opcode == "BUILD":
            del path[-1:]
        elif opcode == "BINPERSID":  # the end of the storage: "storage", class, number, device, length
            place = ".".join([*path[1:], str(values[tensor])[:MAX_NAME]])
            shape = [value for _, value in takewhile(lambda step: "TUPLE" not in step[0], opcodes)][1:]
            contents |= {place: tuple(shape), f"{place}.storage": values[-4]}
            values, tensor = [None, None], -1
        elif opcode in CONSTANTS or value is not None:
            key = values[-1]
            if str(value).startswith('{"'):
                contents |= {f"stored.{name}": part for name, part in json.loads(value).items()}
            elif tensor < 0 and str(value).startswith("torch._utils _rebuild"):
                tensor = len(values) - 1
            elif tensor < 0 and path and _is_name(key) and " " not in str(value):
                contents[".".join([*path[1:], key])] = value
                value = None  # not a name itself
            values.append(value)
    return contents


def difference(pickle: bytes, expected: Sequence[bytes]) -> str:
    """Return the first difference between a pickle and the one of those expected that is most like it."""
    theirs = described(pickle)

    def differing(ours: dict[str, Any]) -> list[str]:
        return [name for name in [*ours, *theirs] if ours.get(name, ...) != theirs.get(name, ...)]

    ours = min(map(described, expected), key=lambda ours: len(differing(ours)))
    names = differing(ours)
    if ("" in ours) != ("" in theirs):
        return "it holds a whole network" if "" in theirs else "it holds a state dict or something else"
    first = "its attributes or hooks differ"
    if names:
        name = names[0]
        has, lacks = (f"{printable(name)} ({short(side.get(name))})" for side in (theirs, ours))
        first = f"{printable(name) or 'its class'} is {short(theirs.get(name))} instead of {short(ours.get(name))}"
        first = f"it has no {lacks}" if name not in theirs else f"it also has {has}" if name not in ours else first
    in_state_dict = any(
        isinstance((theirs | ours)[name], tuple) or name.endswith(".storage") or name.startswith("stored.")
        for name in names
    )
    return first if in_state_dict or "" not in ours else f"{first}; its state dict, as in net_params.pkl, still fits"


def _resolved(pickle: bytes) -> Iterator[tuple[str, Any]]:
    """Yield each opcode with its value, also where that is taken from the memo, which holds what occurs repeatedly."""
    memo: dict[Any, Any] = {}
    latest = None
    for opcode, argument, _ in pickletools.genops(pickle):
        if "PUT" in opcode.name:
            memo[argument] = latest
        else:
            latest = memo.get(argument) if "GET" in opcode.name else CONSTANTS.get(opcode.name, argument)
            yield opcode.name, latest


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME and " " not in value and not value.startswith("_")
