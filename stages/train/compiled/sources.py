"""The modules that decide what a network computes: those that define its layers, and all that these import."""

import ast
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from torch import nn

from stages import network
from stages.runtime import files
from stages.train import loss

IGNORED = sys.stdlib_module_names | {"torch"}  # the versions of Python and torch stand for these
OURS = {  # what is compiled besides the network, and by what
    **{f"{__package__}.{name}": str(Path(__file__).with_name(f"{name}.py")) for name in ("inductor", "loop")},
    loss.__name__: str(loss.__file__),
}


class Module(NamedTuple):
    """A module as it was when it was imported."""

    name: str
    path: str
    digest: str  # of the file
    constants: str  # those that are plain values, as JSON: they may come from a data file or from the environment


def modules_of(net: nn.Module) -> list[Module]:
    """Return the modules by name. Of installed packages, only what our own modules import is among them.

    An import in a function counts once the function has run.
    """
    paths = dict(OURS)
    waiting = [network.__name__, *(type(layer).__module__ for layer in net.modules())]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        path = getattr(module, "__file__", None) or ""
        if name in paths or name.partition(".")[0] in IGNORED or not path.endswith(".py"):
            continue
        paths[name] = path
        if module and not {"site-packages", "dist-packages"} & set(Path(path).parts):
            waiting += _imports(module, path)
    return [Module(name, path, files.digest_when_read(path), _constants(name)) for name, path in sorted(paths.items())]


def _imports(module: ModuleType, path: str) -> Iterator[str]:
    """Yield the names of the modules that a module imports, and other names, for which there are no modules."""
    modules = [value.__name__ for value in vars(module).values() if isinstance(value, ModuleType)]
    yield from (name for name in modules if not name.startswith(f"{module.__name__}."))  # a package holds its modules
    nodes: list[ast.AST] = []
    with suppress(SyntaxError):  # the file is being edited
        nodes = list(ast.walk(ast.parse(Path(path).read_bytes())))
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = resolve_name("." * node.level + (node.module or ""), module.__package__ or "")
            names = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:  # importing a.b runs a, too
            yield from accumulate(name.split("."), "{}.{}".format)


def _constants(name: str) -> str:
    values = {}
    for key, value in vars(sys.modules[name]).items() if name in sys.modules else ():
        if key.isupper():
            with suppress(TypeError, ValueError):
                values[key] = json.dumps(value)
    return json.dumps(values)
