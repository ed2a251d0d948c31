"""Restoring networks, from our own files and from a stranger's."""

import builtins
import functools
import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stages import models, network
from stages.columns import Category, Columns, Number, unnamed
from stages.models import Blueprint
from stages.network import Net, Network
from stages.runtime.errors import UserError
from stages.runtime.outline import MAX_PARTS, parts, saved
from stages.tabular import Tabular

SIZES = (2, 10, 3)
MODULE = Network(style="module", hidden=10)
PLAIN = Blueprint(MODULE, 2, 3)
SEX = Category(name="sex", levels=["f", "m"])
NAMED = Blueprint(MODULE, 2, 3, Columns(features=[SEX], targets=[Number(name=name) for name in "äbc"]))
STYLES = ("module", "sequential")
X = torch.rand(20, 2)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bytes_of(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def stepped(net: nn.Module) -> nn.Module:
    """Return the network after a step of training, with gradients, and with statistics if it has any."""
    if isinstance(net, Tabular):
        net.fit(torch.rand(5, SIZES[0]), torch.rand(5, SIZES[2]))
    net(torch.rand(5, SIZES[0])).sum().backward()
    torch.optim.Adam(net.parameters()).step()
    return net


def save(net: nn.Module) -> None:
    models.save_net("net.pkl", net)
    models.save_params("net_params.pkl", net)


@pytest.mark.parametrize("blueprint", [PLAIN, NAMED], ids=["plain", "named"])
@pytest.mark.parametrize("built", STYLES)
@pytest.mark.parametrize("style", STYLES)
def test_either_style_restores_both_ways_and_its_state_dict_into_the_other(
    style: str, built: str, blueprint: Blueprint
) -> None:
    net = stepped(blueprint.in_style(style).build())
    torch.save(net, "net.pkl")  # by path: another name in the archive
    models.save_params("net_params.pkl", net)
    whole = models.restore_net("net.pkl", blueprint)
    assert [*map(type, whole.modules())] == [*map(type, net.modules())]
    assert torch.equal(whole(X), net(X))
    assert torch.equal(models.restore_params("net_params.pkl", blueprint.in_style(built))(X), net(X))
    torch.save(whole, "again.pkl")
    assert torch.equal(models.restore_net("again.pkl", blueprint)(X), net(X))


@pytest.mark.parametrize("blueprint", [PLAIN, NAMED], ids=["plain", "named"])
@pytest.mark.parametrize("style", STYLES)
def test_a_model_is_loaded_from_either_file_by_one_who_knows_nothing_of_it(style: str, blueprint: Blueprint) -> None:
    net = stepped(blueprint.in_style(style).build())
    save(net)
    names = blueprint.columns or unnamed(2, 3)
    for path in ("net.pkl", "net_params.pkl"):
        loaded = models.load(path)
        assert torch.equal(loaded(X), net(X))
        assert loaded.names == names
        assert not any(module.training for module in loaded.modules())


class Deep(nn.Module):
    """A network of many kinds of layers, as a user may write it."""

    def __init__(self, n_feature: int, n_hidden: int, n_output: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(n_feature, n_hidden), nn.BatchNorm1d(n_hidden), nn.GELU())
        self.second = nn.Sequential(nn.Linear(n_hidden, n_hidden), nn.LayerNorm(n_hidden), nn.Dropout(0.5))
        self.predict = nn.Linear(n_hidden, n_output)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.second(self.first(x)))


def deep_sequential(n_feature: int, n_hidden: int, n_output: int) -> nn.Sequential:
    net = Deep(n_feature, n_hidden, n_output)
    return nn.Sequential(OrderedDict(first=net.first, second=net.second, predict=net.predict))


@pytest.mark.parametrize("built", STYLES)
@pytest.mark.parametrize("style", STYLES)
def test_a_network_of_many_layers_and_buffers_is_restored_both_ways(
    monkeypatch: pytest.MonkeyPatch, style: str, built: str
) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Deep, "sequential": deep_sequential})
    net = stepped(PLAIN.in_style(style).build())
    batches = 0x7F800000  # the bytes of an infinite float32
    net.get_buffer("first.1.num_batches_tracked").fill_(batches)
    save(net)
    rebuilt = models.restore_params("net_params.pkl", PLAIN.in_style(built))
    for restored in (models.restore_net("net.pkl", PLAIN), rebuilt):
        assert bytes_of(restored.state_dict()) == bytes_of(net.state_dict())
        assert restored.training
        assert torch.equal(restored.eval()(X), net.eval()(X))
        net.train()


def test_a_buffer_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Deep, "sequential": deep_sequential})
    for broken in ("first.1.running_mean", "first.1.running_var"):
        net = PLAIN.build()
        net.get_buffer(broken).fill_(torch.nan)
        refused(bytes_of(net))
        refused(bytes_of(net.state_dict()))


class Functional(Net):
    """A network that holds more than modules."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.activation = nn.functional.gelu
        self.limits = {(None, 0.5): float("nan")}
        self.numbers = set(range(0, 32, 8))  # in the order in which they were added


def test_a_network_that_holds_a_function_and_collections_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Functional})
    net = PLAIN.build(seed=1)
    net.numbers = set(range(24, -1, -8))  # type: ignore[assignment]
    save(net)
    for restored in (models.restore_net("net.pkl", PLAIN), models.restore_params("net_params.pkl", PLAIN)):
        assert torch.equal(restored(X), net(X))
        assert restored.activation is nn.functional.gelu


def with_ordered_dicts(net: nn.Module) -> nn.Module:
    """Return the network as another version of torch may keep it."""
    for module in net.modules():
        module.__dict__.update(_parameters=OrderedDict(module._parameters), _modules=OrderedDict(module._modules))
    return net


def shared(net: Any) -> nn.Module:
    """Return the network with its first weights transposed, and both biases in the memory of one tensor."""
    net.hidden.weight = nn.Parameter(torch.rand(2, 10).T)
    biases = torch.rand(13)
    net.hidden.bias, net.predict.bias = nn.Parameter(biases[:10]), nn.Parameter(biases[10:])
    return net


@pytest.mark.parametrize("change", [with_ordered_dicts, shared])
def test_a_network_with_another_layout_in_memory_is_restored(change: Callable[[nn.Module], nn.Module]) -> None:
    net = change(PLAIN.build(seed=1))
    torch.save(net, "net.pkl")
    torch.save(dict(net.state_dict()), "net_params.pkl")
    for restored in (models.restore_net("net.pkl", PLAIN), models.restore_params("net_params.pkl", PLAIN)):
        for name, value in restored.state_dict().items():
            assert torch.equal(value, net.state_dict()[name])
            assert value.is_contiguous()


class Call:
    """A pickle of this calls a function when it is loaded, and may then set a state."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def altered(change: Callable[[Any], object], blueprint: Blueprint = PLAIN) -> nn.Module:
    net = blueprint.build()
    change(net)
    return net


def with_state(**changes: Any) -> Call:
    return Call(Net, *SIZES, state=PLAIN.build().__dict__ | changes)


def doubling(levels: int, combine: Callable[[Any], Any]) -> Any:
    """Return what has 2 ** levels parts when it is unfolded, and few in a pickle."""
    value = combine(1)
    for _ in range(levels):
        value = combine(value)
    return value


def view(values: Tensor, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Call:
    """Return a view of values that may not be valid."""
    storage = torch.storage.TypedStorage(wrap_storage=values.untyped_storage(), dtype=values.dtype, _internal=True)
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


TINY = torch.rand(3)
LONG = "a" * 10**6
TRAP = Call(os.system, "touch trap")
HOSTILE: dict[str, Callable[[], object]] = {
    "os.system": lambda: TRAP,
    "eval": lambda: Call(builtins.eval, "open('trap', 'w')"),
    "exec": lambda: Call(builtins.exec, "open('trap', 'w')"),
    "torch.load": lambda: Call(torch.load, "other.pkl"),
    "partial": lambda: Call(functools.partial(os.system, "touch trap")),
    "getattr": lambda: Call(builtins.getattr, "text", "upper"),
    "nested in a state dict": lambda: OrderedDict(PLAIN.build().state_dict(), bias=TRAP),
    "nested in a network": lambda: altered(lambda net: setattr(net, "extra", TRAP)),
    "absurd sizes": lambda: Call(Net, 1, 200_000_000, 1),
    "absurd layer": lambda: Call(nn.Linear, 100_000, 100_000),
    "absurd bytes": lambda: Call(bytearray, 10**11),
    "absurd tensor": lambda: Call(torch.Tensor, 10**11),
    "absurd view": lambda: PLAIN.build().state_dict() | {"hidden.weight": torch.zeros(1).expand(10**12)},
    "absurd view as modules": lambda: with_state(_modules=torch.zeros(1).expand(10**12)),
    "absurd stride": lambda: PLAIN.build().state_dict() | {"hidden.weight": view(torch.rand(20), (10, 2), (10**11, 1))},
    "absurd view as a setting": lambda: altered(lambda net: setattr(net, "extra", [torch.zeros(1).expand(10**12)])),
    "lists in lists": lambda: with_state(extra=doubling(60, lambda value: [value, value])),
    "dicts in dicts": lambda: with_state(_buffers=doubling(60, lambda value: {"_modules": value, "_buffers": value})),
    "dicts as settings": lambda: with_state(extra=[doubling(60, lambda value: OrderedDict(a=value, b=value))]),
    "layers in layers": lambda: with_state(extra=doubling(60, lambda value: Call(Net, state={"a": value, "b": value}))),
    "long names": lambda: with_state(extra=doubling(60, lambda value: {LONG: value, "b": value})),
    "long names again and again": lambda: with_state(extra=[Call(Net, state={LONG: 1}) for _ in range(5000)]),
    "absurd bytes behind many values": lambda: with_state(extra=[0] * 100_000, more=Call(bytearray, 10**11)),
    "far more neurons than bytes": lambda: {
        name: torch.zeros(10**6, 1) for name in ("hidden.weight", "predict.weight")
    },
    "called with the right sizes": lambda: Call(Net, *SIZES),
    "state of a wrong type": lambda: Call(Net, *SIZES, state=[1, 2]),
    "modules of a wrong type": lambda: with_state(_modules={"hidden": 1}),
    "no modules": lambda: with_state(_modules=1),
    "forward hook": lambda: altered(lambda net: net.register_forward_hook(print)),
    "forward hook of ours": lambda: with_state(_forward_hooks=OrderedDict({0: nn.ReLU()})),
    "forward pre-hook of ours": lambda: with_state(_forward_pre_hooks=OrderedDict({0: nn.ReLU()})),
    "hook of a layer": lambda: altered(lambda net: net.hidden._forward_hooks.update({0: nn.ReLU()})),
    "forward that shadows": lambda: with_state(forward=nn.ReLU()),
    "forward of a layer that shadows": lambda: altered(lambda net: net.hidden.__dict__.update(forward=nn.ReLU())),
    "extra attribute": lambda: with_state(extra=1),
    "missing attribute": lambda: altered(lambda net: net.__dict__.pop("_buffers")),
    "missing layer": lambda: altered(lambda net: net._modules.pop("hidden")),
    "extra layer": lambda: altered(lambda net: net.add_module("more", nn.Linear(1, 1))),
    "another layer": lambda: altered(lambda net: setattr(net, "hidden", nn.ReLU())),
    "layers in another order": lambda: nn.Sequential(
        OrderedDict(hidden=nn.Linear(2, 10), predict=nn.Linear(10, 3), relu=nn.ReLU())
    ),
    "layer too wide for the next": lambda: altered(lambda net: setattr(net, "hidden", nn.Linear(2, 11))),
    "layer that states another width": lambda: altered(lambda net: setattr(net.hidden, "in_features", 3)),
    "no bias": lambda: altered(lambda net: setattr(net, "hidden", nn.Linear(2, 10, bias=False))),
    "float64": lambda: PLAIN.build().double(),
    "frozen": lambda: PLAIN.build().requires_grad_(False),
    "float16": lambda: PLAIN.build().half(),
    "quantized": lambda: Call(torch._utils._rebuild_qtensor),
    "sparse": lambda: PLAIN.build().state_dict() | {"hidden.bias": torch.rand(10).to_sparse()},
    "beyond its record": lambda: PLAIN.build().state_dict() | {"hidden.bias": view(torch.rand(3), (10,), (1,))},
    "beyond a shared record": lambda: (
        PLAIN.build().state_dict() | {"predict.bias": TINY, "hidden.bias": view(TINY, (10,), (1,))}
    ),
    "negative offset": lambda: PLAIN.build().state_dict() | {"hidden.bias": view(torch.rand(10), (10,), (1,), -1)},
    "nan": lambda: altered(lambda net: nn.init.constant_(net.hidden.bias, torch.nan)),
    "inf": lambda: altered(lambda net: nn.init.constant_(net.hidden.bias, torch.inf)),
    "evaluation mode": lambda: PLAIN.build().eval(),
    "other object": lambda: {"hidden.weight": 1},
    "tensor": lambda: torch.zeros(1),
    "state dict of a plain Sequential": lambda: nn.Sequential(
        nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 3)
    ).state_dict(),
    "state dict with one tensor more": lambda: OrderedDict(PLAIN.build().state_dict(), more=torch.zeros(1)),
}
HOSTILE_COLUMNS: dict[str, Callable[[Any], object]] = {  # changes of a network with columns
    "hook": lambda net: net.register_forward_hook(print),
    "hook inside": lambda net: net.net._forward_hooks.update({0: nn.ReLU()}),
    "forward that shadows": lambda net: net.__dict__.update(forward=nn.ReLU()),
    "call instead of columns": lambda net: setattr(net, "columns", TRAP),
    "no columns": lambda net: setattr(net, "columns", None),
    "columns that are no JSON": lambda net: setattr(net, "columns", '{"features"'),
    "columns deep in lists": lambda net: setattr(net, "columns", '{"features":' + "[" * 10**6),
    "columns of another number": lambda net: setattr(net, "columns", net.columns.replace('"b",', "")),
    "one column twice": lambda net: setattr(net, "columns", net.columns.replace('"b"', '"c"')),
    "columns twice": lambda net: setattr(net, "more", net.columns),
    "nan": lambda net: net.x_mean.fill_(torch.nan),
    "float32 statistics": lambda net: net.float(),
    "another network inside": lambda net: setattr(net, "net", nn.Linear(2, 3)),
    "a network with columns inside": lambda net: setattr(net, "net", NAMED.build()),
}


def test_what_is_read_before_a_file_is_known_has_limits() -> None:
    assert parts(saved({"x": torch.zeros(1)}))["x"].is_meta
    assert len(parts(saved(doubling(19, lambda value: [value, value])))) == MAX_PARTS
    with pytest.raises(ValueError, match="^$"):
        parts(saved({LONG: 1}))


def refused(content: bytes, blueprint: Blueprint = PLAIN) -> None:
    """Assert that all readers refuse the file in one line."""
    Path("model.pkl").write_bytes(content)
    for restore in (
        lambda: models.restore_net("model.pkl", blueprint),
        lambda: models.restore_params("model.pkl", blueprint),
        lambda: models.load("model.pkl"),
    ):
        with pytest.raises(UserError, match=r"^model.pkl: (is|does) not [^\n]*(`|stages/network.py)$"):
            restore()
    assert not Path("trap").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_but_our_network_is_refused_and_nothing_in_it_runs(name: str) -> None:
    refused(bytes_of(HOSTILE[name]()))


@pytest.mark.parametrize("name", HOSTILE_COLUMNS)
def test_anything_but_our_network_with_columns_is_refused_and_nothing_in_it_runs(name: str) -> None:
    refused(bytes_of(altered(HOSTILE_COLUMNS[name], NAMED)), NAMED)


@pytest.mark.parametrize("state", [{"_extra_state": TRAP}, {"_extra_state": None}], ids=["call", "no columns"])
def test_a_state_dict_with_something_else_for_columns_is_refused(state: dict[str, Any]) -> None:
    refused(bytes_of(OrderedDict(NAMED.build().state_dict() | state)), NAMED)


FITS = "; its state dict, as in net_params.pkl, still fits"


def refusals(blueprint: Blueprint) -> list[str]:
    """Return what is said of net.pkl and net_params.pkl in place of a network like this, up to what to do."""
    texts = []
    for restore, path in ((models.restore_net, "net.pkl"), (models.restore_params, "net_params.pkl")):
        with pytest.raises(UserError) as raised:
            restore(path, blueprint)
        prefix = f"{path}: does not hold the network of params.yaml and stages/network.py: "
        text = str(raised.value).removeprefix(prefix)
        texts.append(text.removesuffix(": undo the change, or run `dvc repro --force train`"))
    return texts


def test_what_differs_is_named() -> None:
    save(NAMED.build())
    columns = Columns(features=[SEX], targets=[Number(name=name) for name in ("ä", "b", "other")])
    assert refusals(NAMED._replace(columns=columns)) == ["stored.targets.2.name is 'c' instead of 'other'"] * 2
    missing = "hidden.weight is missing instead of (10, 2)"
    assert refusals(PLAIN) == ["its class is 'Tabular' instead of 'Net'", missing]
    save(PLAIN.build())
    wider = PLAIN._replace(section=Network(style="module", hidden=1000))
    assert refusals(wider) == ["hidden.weight is (10, 2) instead of (1000, 2)"] * 2
    Path("net.pkl").rename("whole")
    Path("net_params.pkl").rename("net.pkl")
    Path("whole").rename("net_params.pkl")
    assert refusals(PLAIN) == [
        f"its class is {kinds}" for kinds in ("'dict' instead of 'Net'", "'Net' instead of 'dict'")
    ]


def test_a_state_dict_of_another_dtype_does_not_fit() -> None:
    save(PLAIN.build().double())
    assert refusals(PLAIN) == ["hidden.weight.dtype is torch.float64 instead of torch.float32"] * 2


ALTERATIONS: dict[str, Callable[[], object]] = {
    "_forward_hooks.0 is 'ReLU' instead of missing": HOSTILE["forward hook of ours"],
    "extra is 1 instead of missing": HOSTILE["extra attribute"],
    "hidden.weight.requires_grad is False instead of True": HOSTILE["frozen"],
    "training is False instead of True": HOSTILE["evaluation mode"],
    "order is ['hidden', 'predict', 'relu'] instead of ['hidden', 'relu', 'predict']": HOSTILE[
        "layers in another order"
    ],
}


@pytest.mark.parametrize("words", ALTERATIONS)
def test_an_alteration_that_leaves_the_state_dict_is_named(words: str) -> None:
    Path("net.pkl").write_bytes(bytes_of(ALTERATIONS[words]()))
    with pytest.raises(UserError, match=re.escape(f": {words}{FITS}: undo")):
        models.restore_net("net.pkl", PLAIN)


EDITS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {  # a new layer, and what is said of both files
    "another rate": (lambda: nn.Dropout(0.1), f"more.p is 0.2 instead of 0.1{FITS}", ""),
    "another layer": (nn.Tanh, f"more is 'Dropout' instead of 'Tanh'{FITS}", ""),
    "a layer more": (
        lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(3, 3)),
        "more is 'Dropout' instead of 'Sequential'",
        "more.1.weight is missing instead of (3, 3)",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_an_edit_of_the_network_has_changed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new_layer, of_net, of_params = EDITS[name]

    def use(layer: Callable[[], nn.Module]) -> None:
        def sequential(n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
            layers = OrderedDict(hidden=nn.Linear(n_feature, n_hidden), predict=nn.Linear(n_hidden, n_output))
            return nn.Sequential(layers | {"more": layer()})

        monkeypatch.setattr(network, "STYLES", {"module": sequential})

    use(lambda: nn.Dropout(0.2))
    save(PLAIN.build())
    use(new_layer)
    if of_params:
        assert refusals(PLAIN) == [of_net, of_params]
    else:
        with pytest.raises(UserError, match=re.escape(of_net)):
            models.restore_net("net.pkl", PLAIN)
        assert isinstance(models.restore_params("net_params.pkl", PLAIN), nn.Sequential)


class Tuned(Network):
    """The section with more params, as a fork may have it."""

    rate: float
    depth: int


def test_params_that_tensors_do_not_show_are_stored_with_the_columns_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "Network", Tuned)
    monkeypatch.setattr(
        network, "build", lambda section, *sizes: nn.Sequential(Net(2, 10, 3), nn.Dropout(section.rate))
    )
    tuned = NAMED._replace(section=Tuned(style="module", hidden=10, rate=0.25, depth=2))
    net = stepped(tuned.build())
    save(net)
    for path in ("net.pkl", "net_params.pkl"):
        loaded = models.load(path)
        assert loaded.get_submodule("net.1").p == 0.25
        assert torch.equal(loaded(X), net.eval()(X))
        assert loaded.names == NAMED.columns
    deeper = tuned._replace(section=Tuned(style="module", hidden=10, rate=0.25, depth=3))
    assert refusals(deeper) == ["stored.network.depth is 2 instead of 3"] * 2

    save(tuned._replace(columns=None).build())
    for path in ("net.pkl", "net_params.pkl"):
        with pytest.raises(UserError) as raised:
            models.load(path)
        assert str(raised.value) == (
            f"{path}: does not store network.depth, network.rate: use restore_net or restore_params with these params, "
            "or train with `network.standardize: true`, which stores them, by `dvc repro`"
        )


def rezipped(records: dict[str, bytes]) -> bytes:
    """Return an archive of our network in which these records are replaced or added."""
    source, target = zipfile.ZipFile(io.BytesIO(bytes_of(PLAIN.build()))), io.BytesIO()
    with source, zipfile.ZipFile(target, "w") as archive:
        for name, data in ({name: source.read(name) for name in source.namelist()} | records).items():
            archive.writestr(name, data)
    return target.getvalue()


def of_pickle(steps: bytes) -> bytes:
    return rezipped({"archive/data.pkl": b"\x80\x02" + steps + b"."})


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"not a zip",
    "bomb": lambda: rezipped({"archive/bomb": b"\0" * 10**7}),
    "traversal": lambda: rezipped({"../../trap": b"x"}),
    "another pickle": lambda: rezipped({"archive/DATA.PKL": pickle.dumps(TRAP, 2)}),
    "another size of a record": lambda: rezipped({"archive/data/0": bytes(4)}),
    "deep pickle": lambda: of_pickle(b"]" + b"\x85" * 90_000),
    "tuples in tuples as a name": lambda: of_pickle(
        b"}K\1" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"Ns"
    ),
    "the same noted twice": lambda: of_pickle(
        b"}K\1" + b"".join(b"q%cq%ch%c\x86" % (i, i + 99, i + 99) for i in range(60)) + b"Ns"
    ),
    "the same noted as a text before": lambda: of_pickle(b"X\1\0\0\0aq\1}K\1" + b"q\1h\1\x86" * 60 + b"Ns"),
    "long pickle": lambda: of_pickle(b"N" * 200_000),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_are_not_as_torch_writes_them_are_refused(name: str) -> None:
    refused(ARCHIVES[name]())


def test_a_missing_file_and_a_folder_say_what_to_do() -> None:
    Path("folder.pkl").mkdir()
    with pytest.raises(UserError, match=r"^nowhere.pkl: is missing: run `dvc repro`$"):
        models.restore_net("nowhere.pkl", PLAIN)
    with pytest.raises(
        UserError, match=r"^folder.pkl: cannot be read: Is a directory: fix this, then run `dvc repro`$"
    ):
        models.restore_net("folder.pkl", PLAIN)


FIRST = PLAIN.build()
FILE = bytes_of(FIRST)


@settings(max_examples=int(os.environ.get("FUZZ", "200")), deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 9)
)
def test_fuzz_a_network_with_mutated_bytes_is_refused_or_as_it_was(edits: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(FILE)
    for place, value in edits:
        content[place] = value
    Path("model.pkl").write_bytes(content[: len(content) - cut * 50])
    try:
        net = models.restore_net("model.pkl", PLAIN)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert bytes_of(net.state_dict()) == bytes_of(FIRST.state_dict())
