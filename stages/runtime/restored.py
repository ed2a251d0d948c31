"""Load what torch.save wrote, possibly for a stranger, only if it is like an object that is expected.

Unpickling runs what the file says: torch's allow-list keeps out other classes, but not a hook, a `forward` that shadows
the method, or a layer of a billion neurons. So a file is loaded only if torch.save would have written it for one of the
expected objects: the same records, byte for byte, except for the values of the tensors. Any other file is read with
stand-ins for its classes and without its tensors, to say what differs.
"""

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from stages.runtime import archive
from stages.runtime.errors import UserError, printable, short

Loaded = TypeVar("Loaded", nn.Module, dict[str, Any])

BUILT_IN = re.compile(  # what torch.save needs for tensors; torch.load allows more, such as a bytearray of any size
    r"collections OrderedDict|__builtin__ set|torch (\w+Storage|[a-z]\w*)|torch\._utils _rebuild_(tensor_v2|parameter)"
)
MAX_PARTS, MAX_NAME, MAX_REPEATED = 100_000, 200, 20  # a pickle that repeats parts in parts can stand for much more


class StandIn:
    """Takes the place of an object of any class: it has the object's attributes, and none of its code."""

    def __init__(self, *arguments: Any) -> None:
        """Take what the class would be called with, and do nothing."""


def restored(
    path: str, records: dict[str, bytes], expected: Sequence[Loaded], fault: str, remedy: str, fits: str = ""
) -> Loaded:
    """Return what torch.save wrote, if it is like one of the expected objects except for the values of its tensors.

    Raises UserError, `path: fault: difference: remedy`, if it is not, and ValueError if a value is not finite. `fits`
    follows the difference between networks whose state dicts are alike.
    """
    archives = [saved(value) for value in expected]
    if not any(_alike(records, ours) for ours in archives):
        differs = difference(records, archives, fits) or "another version of torch may have written it"
        raise UserError(f"{path}: {fault}: {differs}: {remedy}")
    modules = [module for value in expected if isinstance(value, nn.Module) for module in value.modules()]
    with safe_globals([type(module) for module in modules]):
        if foreign := get_unsafe_globals_in_checkpoint(_packed(records)):
            raise UserError(
                f"{path}: must hold only modules, got {', '.join(foreign)}: "
                "use modules in stages/network.py, e.g. nn.GELU() instead of F.gelu, then run `dvc repro`"
            )
        loaded: Loaded = torch.load(_packed(records), map_location="cpu", weights_only=True)
    values = loaded.state_dict() if isinstance(loaded, nn.Module) else loaded
    if not all(value.isfinite().all() for value in values.values() if isinstance(value, Tensor)):
        raise ValueError
    return loaded


def saved(value: object) -> dict[str, bytes]:
    """Return the records that torch.save writes for a value."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return records_of(buffer)


def records_of(file: BinaryIO) -> dict[str, bytes]:
    """Return the records of an archive that torch.save wrote, by name without the archive's name."""
    with archive.opened(file) as opened:
        return {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}


def difference(records: dict[str, bytes], expected: Sequence[dict[str, bytes]], fits: str = "") -> str:
    """Return the first difference from the one of these archives that is most like the records; "" if there is none.

    `fits` follows a difference between networks whose state dicts are alike.
    Raises ValueError, or whatever torch.load raises, as `outline` does.
    """
    theirs = outline(records)
    differing = []
    for ours in map(outline, expected):
        names = [name for name in ours | theirs if ours.get(name, ...) != theirs.get(name, ...)]
        differing.append((names, ours))
    names, ours = min(differing, key=lambda pair: len(pair[0]))
    if not names:
        return ""
    has, needs = (_worded(side[names[0]]) if names[0] in side else "missing" for side in (theirs, ours))
    kinds = [type((theirs | ours)[name]) for name in names]
    same_state = not (torch.Size in kinds or torch.dtype in kinds or "stored.text" in names)
    networks = "OrderedDict" not in (theirs.get(""), ours[""])  # that is the class of a state dict
    first = f"{printable(names[0]) or 'its class'} is {has} instead of {needs}"
    return first + fits if same_state and networks else first


def outline(records: dict[str, bytes]) -> dict[str, Any]:
    """Return what torch.save wrote, in order, by dotted name, such as `hidden.in_features`; a tensor is its shape.

    What has parts is the name of its class. JSON text has parts such as `stored.features`, and is itself `stored.text`.
    No code that the file names runs, and no tensor takes memory.
    Raises ValueError, or whatever torch.load raises, for what is too large and for what torch.save does not write.
    """
    names = get_unsafe_globals_in_checkpoint(_packed(records))
    memo, latest, repeated = {}, "", 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(records["data.pkl"])):
        if "PUT" in opcode.name:
            memo[argument] = latest
        repeated += "GET" in opcode.name and memo[argument] not in ("BINUNICODE", "GLOBAL")
        latest = opcode.name
        known = latest != "GLOBAL" or str(argument).replace(" ", ".") in names or BUILT_IN.fullmatch(str(argument))
        if count == MAX_PARTS or repeated > MAX_REPEATED or not known:
            raise ValueError
    with safe_globals([(type(name.rpartition(".")[2], (StandIn,), {}), name) for name in names]):
        value = torch.load(_packed(records), map_location="meta", weights_only=True)
    return dict(islice(_parts("", value), MAX_PARTS))


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor):
        yield from ((name, value.shape), (f"{name}.dtype", value.dtype), (f"{name}.requires_grad", value.requires_grad))
    elif isinstance(value, str) and value.startswith('{"'):
        yield from _parts("stored", json.loads(value))
        yield "stored.text", value
    elif isinstance(value, StandIn | dict | list | tuple | set):
        yield name, type(value).__name__
        for key, part in _items(value):
            if not isinstance(key, str | int) or len(name) > MAX_NAME:
                raise ValueError
            yield from _parts(f"{name}.{key}" if name else str(key), part)
    else:
        yield name, value


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, StandIn):
        for key, part in vars(value).items():
            yield from part.items() if key in ("_parameters", "_buffers", "_modules") else [(key, part)]
    else:
        yield from value.items() if isinstance(value, dict) else enumerate(value)


def _worded(value: Any) -> str:
    return short(tuple(value) if isinstance(value, torch.Size) else value)


def _alike(records: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    """Return whether records differ at most in the values of tensors, and the hash of these."""
    return records.keys() == expected.keys() and all(
        len(records[name]) == len(data) if "data/" in name else records[name] == data for name, data in expected.items()
    )


def _packed(records: dict[str, bytes]) -> BinaryIO:
    """Return an archive of our own with these records: two readers can see two different things in a forged one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, data in records.items():
            target.writestr(f"archive/{name}", data)
    file.seek(0)
    return file
