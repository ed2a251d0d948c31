"""Load what torch.save wrote, possibly for a stranger, only if it is like an object that is expected.

Unpickling runs what the file says: torch's allow-list keeps out other classes, but not a hook, a `forward` that shadows
the method, or a layer of a billion neurons. So a file is unpickled only if torch.save would have written it for one of
the expected objects: the same records, byte for byte, except for the values of the tensors.
"""

import io
import zipfile
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from stages.runtime import archive
from stages.runtime.errors import UserError
from stages.runtime.pickles import difference

Loaded = TypeVar("Loaded", nn.Module, dict[str, Any])


def restored(path: str, content: bytes, expected: Sequence[Loaded], fault: str, remedy: str) -> Loaded:
    """Return what torch.save wrote, if it is like one of the expected objects except for the values of its tensors.

    Raises UserError, `path: fault: difference: remedy`, if it is not, and ValueError if a value is not finite.
    """
    records, archives = records_of(content), [records_of(saved(value)) for value in expected]
    if not any(_alike(records, ours) for ours in archives):
        told = difference(records["data.pkl"], [ours["data.pkl"] for ours in archives])
        raise UserError(f"{path}: {fault}: {told}: {remedy}")
    # Load what was compared, in an archive of our own: two readers can see two different things in a forged one.
    own = io.BytesIO()
    with zipfile.ZipFile(own, "w") as target:
        for name, data in records.items():
            target.writestr(f"archive/{name}", data)
    modules = [module for value in expected if isinstance(value, nn.Module) for module in value.modules()]
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
    if not all(value.isfinite().all() for value in values.values() if isinstance(value, Tensor)):
        raise ValueError
    return loaded


def saved(value: object) -> bytes:
    """Return what torch.save writes for a value."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def records_of(content: bytes) -> dict[str, bytes]:
    """Return the records of an archive that torch.save wrote, by name without the archive's name."""
    with archive.opened(io.BytesIO(content)) as opened:
        return {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}


def _alike(records: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    """Return whether records differ at most in the values of tensors, and the hash of these."""
    return records.keys() == expected.keys() and all(
        len(records[name]) == len(data) if "data/" in name else records[name] == data for name, data in expected.items()
    )
