"""What is read from YAML is what DVC's parser reads."""

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import loads_yaml

from stages.runtime import yaml12
from tests.conftest import LESSON

CASES = int(os.environ.get("FUZZ", "1000"))
SCALARS = r"""1 12 -3 +1 -0 0x1F -0x1F 0o17 0b11 010 08 1_0 1__0 -_ _1 0x_ 0o8 0o 0x . ._ .5 1. 1e5 1E-5 1e-05 .5e3
.5e+3 -.5 +.5 1.0.0 .inf -.Inf +.INF .NaN -.nan nan inf 1e999 1:30 12:30:45 yes no on off y n true True TRUE tRue false
null Null NULL ~ = 2024-01-01 2024-1-1 a größe "a" 'b' "\x41" "\/" "\u00e9" "\n" 'it''s' '<<' """
SYNTAX = r"""key: - ? : , [ ] { } # & * ! | > ' " % @ ` \ / --- ... %YAML << &a *a !a !!int !!str |- >+ |2""".split()
CHARACTERS = ["\u00a0", "\u2028", "\x85", "\x7f", "\x00", "\x07", "\ufeff", "\U0001f600", "\t", "\r", "\r\n"]
BLANKS = [" ", "  ", "\n", "\n  ", "\n    ", ": ", ", ", "- ", "? ", " #c\n"]
PIECES = SCALARS.split() + SYNTAX + CHARACTERS + 3 * BLANKS
DOCUMENTS = [
    "{}",
    "a: {}",
    "- {}\n- {}",
    "{}: {}\n{}: {}",
    "a:\n  {}\n  {}\nb: 1",
    "? {}\n: {}",
    "'{}'",
    '"{}"',
    "a: |\n  {}",
]
DOCUMENTS += ["[{}]", "{{{}}}", "a: [{}, {}]", "{{{}: {}, {}: {}}}"]


class Pure(yaml12.Scalars, yaml.SafeLoader):
    """The loader that stands in where PyYAML has no libyaml."""


def read(load: Callable[[str], Any], text: str) -> str | None:
    """Return what a parser reads, with types, or None if it refuses the text."""
    try:
        return repr(load(text))
    except Exception:  # ruamel.yaml raises all kinds of errors
        return None


@pytest.mark.parametrize("loader", [yaml12.Loader, Pure])
def test_every_scalar_is_what_dvc_reads(loader: type) -> None:
    for scalar in SCALARS.split():
        text = f"key: {scalar}"
        theirs = read(loads_yaml, text)
        assert theirs == read(lambda text: yaml12.load(text, loader), text), text


@pytest.mark.parametrize("loader", [yaml12.Loader, Pure])
def test_fuzz_a_document_is_what_dvc_reads_or_is_refused(loader: type) -> None:
    generator, both = random.Random(1), 0
    for _ in range(CASES):
        document = generator.choice(DOCUMENTS)
        parts = ["".join(generator.choices(PIECES, k=generator.randint(1, 5))) for _ in range(document.count("{}"))]
        text = document.format(*parts)
        ours, theirs = read(lambda text: yaml12.load(text, loader), text), read(loads_yaml, text)
        if ours and theirs:
            assert ours == theirs, text
            both += 1
    assert both > CASES / 4


def test_ten_levels_of_nesting_are_read() -> None:
    text = 10 * "[" + 10 * "]"
    assert yaml12.load(text) == loads_yaml(text)


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_document() -> None:
    assert yaml12.load("\ufeff" + LESSON.read_text(encoding="utf-8")) == loads_yaml(LESSON.read_text(encoding="utf-8"))
