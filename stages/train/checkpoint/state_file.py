"""A file that holds the state of a training: a digest, then the bytes that torch.save wrote."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from stages.runtime import files

DIGEST_BYTES = hashlib.blake2b().digest_size


class DamagedError(Exception):
    """A state file does not hold what `write` wrote."""


def write(path: str, state: dict[str, Any], *, durable: bool) -> None:
    """Write the state: plain values and tensors. Raises UserError if the system refuses."""
    body = io.BytesIO()
    torch.save(state, body)
    with files.writing(path, durable=durable) as file:
        file.write(hashlib.blake2b(body.getbuffer()).digest())
        file.write(body.getbuffer())


def read(path: str) -> bytes:
    """Return the state as bytes, for `unpacked`. Raises OSError if they cannot be read, DamagedError if damaged."""
    files.regular(path)
    content = Path(path).read_bytes()
    digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.blake2b(body).digest() != digest:
        raise DamagedError
    return body


def unpacked(body: bytes) -> dict[str, Any]:
    """Return the state, its tensors on the CPU. Raises whatever torch raises if the bytes do not hold one."""
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
