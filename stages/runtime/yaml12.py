"""Read YAML 1.2 as DVC's parser does, or refuse it.

PyYAML follows YAML 1.1, where `yes` is a boolean, `010` is 8 and `1e-05` is a text. The patterns below are those of
ruamel.yaml, which DVC uses: the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), and numbers
with underscores, a sign before 0x, or binary digits.
"""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MAX_LEVELS = 10  # of nested collections: libyaml takes seconds for thousands
AMBIGUOUS = re.compile("[\x85\u2028\u2029\ufeff]")  # line ends in YAML 1.1 alone; a byte order mark not at the start

BOOL, INT, FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float"))
SCALARS = {  # the characters that such a scalar can start with, and all of it
    BOOL: ("tTfF", "true|True|TRUE|false|False|FALSE"),
    FLOAT: (
        "-+.0123456789",
        r"[-+]?[0-9][0-9_]*(\.[0-9_]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)"
        r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ),
    INT: ("-+0123456789", "[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)"),
}
BASES = {"0b": 2, "0o": 8, "0x": 16}

Resolvers = dict[str, list[tuple[str, re.Pattern[str]]]]


def _resolvers() -> Resolvers:
    resolvers: Resolvers = {}
    for first, tags in yaml.SafeLoader.yaml_implicit_resolvers.items():
        resolvers[first] = [(tag, pattern) for tag, pattern in tags if tag not in SCALARS]
    for tag, (firsts, pattern) in SCALARS.items():
        for first in firsts:
            resolvers.setdefault(first, []).append((tag, re.compile(f"({pattern})$")))
    return resolvers


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, BASES.get(text.lstrip("-+")[:2], 10))


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = node.value.replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


class Scalars:
    """What makes PyYAML's loaders read the scalars of YAML 1.2, and refuse a key that is there twice."""

    yaml_implicit_resolvers = _resolvers()
    yaml_constructors = yaml.SafeLoader.yaml_constructors | {INT: _integer, FLOAT: _float}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping. Raises ConstructorError if a key is there twice or is no scalar."""
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)  # type: ignore[attr-defined]
            if key in keys:
                raise ConstructorError(None, None, f"found duplicate key {key!r}", key_node.start_mark)
            keys.add(key)
        return mapping


class Loader(Scalars, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """With libyaml, where PyYAML has it, which takes a tenth of the time."""


def load(text: str, loader: type = Loader) -> Any:
    """Return the value of a document. Raises yaml.YAMLError, or ValueError, where it is not YAML or is refused."""
    text = text.removeprefix("\ufeff")
    if character := AMBIGUOUS.search(text):
        mark = yaml.Mark("", 0, text.count("\n", 0, character.start()), 0, None, None)
        raise ConstructorError(None, None, f"found the character {character[0]!a}", mark)
    level = 0
    for event in yaml.parse(text, Loader=loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if rule := _refused(event, level, text):
            raise ConstructorError(None, None, rule, event.start_mark)
    return loader(text).get_single_data()


def _refused(event: yaml.Event, level: int, text: str) -> str | None:
    """Return why an event is refused, if it is.

    A few aliases can stand for billions of values, and DVC does not preserve them: `dvc exp run -S` may change an
    aliased value in one place or in all. Parsers differ in what they make of the others.
    """
    if level > MAX_LEVELS:
        return f"must have at most {MAX_LEVELS} levels of nesting"
    if anchor := getattr(event, "anchor", None):
        return f"anchors and aliases are not allowed: write out the value, got {anchor}"
    if tag := getattr(event, "tag", None):
        return f"tags are not allowed, got {tag}"
    if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
        return "directives such as %YAML are not allowed"
    place = event.start_mark.index
    if isinstance(event, yaml.MappingStartEvent) and event.flow_style and text[place] != "{":
        return "a mapping in a list must have braces"
    if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
        if event.value == "<<":
            return "merge keys are not allowed: write out the values, got <<"
        if event.value == "" and text[place - 1 : place + 1] in (":,", ":]", ":}"):
            return "a colon must be followed by a space"
    return None
