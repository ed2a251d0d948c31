"""Restoring networks, from our own files and from a stranger's."""

import builtins
import functools
import io
import json
import os
import pickle
import re
import subprocess
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
from stages.columns import Columns
from stages.models import Blueprint
from stages.network import Net, Network
from stages.runtime.errors import UserError
from stages.tabular import Tabular

SIZES = (2, 10, 3)
MODULE = Network(style="module", hidden=10)
PLAIN = Blueprint(MODULE, 2, 3)
NAMED = Blueprint(MODULE, 2, 3, Columns(features=["sex"], targets=["ä", "b", "c"], categories={"sex": ["f", "m"]}))
STYLES = ("module", "sequential")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bytes_of(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def new(style: str = "module", sizes: tuple[int, int, int] = SIZES) -> nn.Module:
    section = Network.model_validate({"style": style, "hidden": sizes[1]})
    return network.build(section, sizes[0], sizes[2], seed=0)


def stepped(net: nn.Module) -> nn.Module:
    """Return the network after a step of training, with gradients, and with statistics if it has any."""
    if isinstance(net, Tabular):
        net.fit(torch.rand(5, SIZES[0]), torch.rand(5, SIZES[2]))
    net(torch.rand(5, SIZES[0])).sum().backward()
    torch.optim.Adam(net.parameters()).step()
    return net


@pytest.mark.parametrize("blueprint", [PLAIN, NAMED], ids=["plain", "named"])
@pytest.mark.parametrize("built", STYLES)
@pytest.mark.parametrize("style", STYLES)
def test_either_style_restores_both_ways_and_its_state_dict_into_the_other(
    style: str, built: str, blueprint: Blueprint
) -> None:
    net = stepped(blueprint.in_style(style).build())
    torch.save(net, "net.pkl")  # by path: another name in the archive
    Path("net_params.pkl").write_bytes(bytes_of(net.state_dict()))
    x = torch.rand(20, SIZES[0])
    whole = models.restore_net("net.pkl", blueprint)
    assert [type(each) for each in whole.modules()] == [type(each) for each in net.modules()]
    assert torch.equal(whole(x), net(x))
    assert torch.equal(models.restore_params("net_params.pkl", blueprint.in_style(built))(x), net(x))
    torch.save(whole, "again.pkl")
    assert torch.equal(models.restore_net("again.pkl", blueprint)(x), net(x))


@pytest.mark.parametrize("blueprint", [PLAIN, NAMED], ids=["plain", "named"])
@pytest.mark.parametrize("style", STYLES)
def test_a_model_is_loaded_from_either_file_by_one_who_knows_nothing_of_it(style: str, blueprint: Blueprint) -> None:
    net, x = stepped(blueprint.in_style(style).build()), torch.rand(20, SIZES[0])
    models.save_net("net.pkl", net)
    models.save_params("net_params.pkl", net)
    names = blueprint.columns or Columns(features=["x_0", "x_1"], targets=["y_0", "y_1", "y_2"])
    for path in ("net.pkl", "net_params.pkl"):
        loaded = models.load(path)
        assert torch.equal(loaded(x), net(x))
        assert loaded.names == names
        assert not any(module.training for module in loaded.modules())


def test_a_state_dict_with_columns_is_all_that_plain_torch_needs() -> None:
    net, x = stepped(NAMED.build()), torch.rand(20, SIZES[0])
    models.save_params("net_params.pkl", net)
    values = torch.load("net_params.pkl", weights_only=True)
    standardized = ((x - values["x_mean"]) / values["x_deviation"]).float()
    hidden = (standardized @ values["net.hidden.weight"].T + values["net.hidden.bias"]).relu()
    y = hidden @ values["net.predict.weight"].T + values["net.predict.bias"]
    torch.testing.assert_close((y * values["y_deviation"] + values["y_mean"]).float(), net(x))
    assert json.loads(values["_extra_state"])["targets"] == ["ä", "b", "c"]


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
    net = stepped(new(style))
    batches = 0x7F800000  # the bytes of an infinite float32
    net.get_buffer("first.1.num_batches_tracked").fill_(batches)
    models.save_net("net.pkl", net)
    models.save_params("net_params.pkl", net)
    x = torch.rand(20, SIZES[0])
    whole, rebuilt = (
        models.restore_net("net.pkl", PLAIN),
        models.restore_params("net_params.pkl", PLAIN.in_style(built)),
    )
    for restored in (whole, rebuilt):
        assert bytes_of(restored.state_dict()) == bytes_of(net.state_dict())
        assert restored.training
        assert torch.equal(restored.eval()(x), net.eval()(x))
        assert int(restored.get_buffer("first.1.num_batches_tracked")) == batches
        net.train()


def test_a_buffer_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Deep, "sequential": deep_sequential})
    for broken in ("first.1.running_mean", "first.1.running_var"):
        net = new()
        net.get_buffer(broken).fill_(torch.nan)
        refused(bytes_of(net))
        refused(bytes_of(net.state_dict()))


class Functional(Net):
    """A network that holds a function, which the allow-list of torch.load does not name."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.activation = nn.functional.gelu


def test_a_network_that_holds_more_than_modules_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Functional})
    models.save_net("net.pkl", new())
    with pytest.raises(UserError) as told:
        models.restore_net("net.pkl", PLAIN)
    assert str(told.value) == (
        "net.pkl: must hold only modules, got torch._C._nn.gelu: "
        "use modules in stages/network.py, e.g. nn.GELU() instead of F.gelu, then run `dvc repro`"
    )


class Call:
    """A pickle of this calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class State:
    """A pickle of this makes an object of an allowed class, by calling it or not, and sets a state that we choose."""

    def __init__(self, kind: type, arguments: tuple[Any, ...], state: Any) -> None:
        self.reduced = kind, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def altered(change: Callable[[nn.Module], object], style: str = "module") -> nn.Module:
    net = new(style)
    change(net)
    return net


def with_state(**changes: Any) -> State:
    return State(Net, SIZES, new().__dict__ | changes)


TRAP = ("touch", "trap")
HOSTILE: dict[str, Callable[[], object]] = {
    "os.system": lambda: Call(os.system, " ".join(TRAP)),
    "subprocess": lambda: Call(subprocess.run, TRAP),
    "eval": lambda: Call(builtins.eval, "open('trap', 'w')"),
    "exec": lambda: Call(builtins.exec, "open('trap', 'w')"),
    "torch.load": lambda: Call(torch.load, "other.pkl"),
    "partial": lambda: Call(functools.partial(os.system, " ".join(TRAP))),
    "getattr": lambda: Call(builtins.getattr, "text", "upper"),
    "nested in a state dict": lambda: OrderedDict(new().state_dict(), bias=Call(os.system, " ".join(TRAP))),
    "nested in a network": lambda: altered(lambda net: setattr(net, "extra", Call(os.system, " ".join(TRAP)))),
    "absurd sizes": lambda: Call(Net, 1, 200_000_000, 1),
    "absurd layer": lambda: Call(nn.Linear, 100_000, 100_000),
    "absurd bytes": lambda: Call(bytearray, 10**11),
    "absurd view": lambda: new().state_dict() | {"hidden.weight": torch.zeros(1).expand(10**12)},
    "called with the right sizes": lambda: Call(Net, *SIZES),
    "state of a wrong type": lambda: State(Net, SIZES, [1, 2]),
    "modules of a wrong type": lambda: with_state(_modules={"hidden": 1}),
    "forward hook": lambda: altered(lambda net: net.register_forward_hook(print)),
    "forward hook of ours": lambda: with_state(_forward_hooks=OrderedDict({0: nn.ReLU()})),
    "forward pre-hook of ours": lambda: with_state(_forward_pre_hooks=OrderedDict({0: nn.ReLU()})),
    "hook of a layer": lambda: altered(lambda net: net.get_submodule("hidden")._forward_hooks.update({0: nn.ReLU()})),
    "forward that shadows": lambda: with_state(forward=nn.ReLU()),
    "forward of a layer that shadows": lambda: altered(lambda net: net.hidden.__dict__.update(forward=nn.ReLU())),
    "extra attribute": lambda: with_state(extra=1),
    "missing attribute": lambda: State(Net, SIZES, {k: v for k, v in new().__dict__.items() if k != "_buffers"}),
    "missing layer": lambda: altered(lambda net: net._modules.pop("hidden")),
    "extra layer": lambda: altered(lambda net: net.add_module("more", nn.Linear(1, 1))),
    "another layer": lambda: altered(lambda net: setattr(net, "hidden", nn.ReLU())),
    "layers in another order": lambda: nn.Sequential(
        OrderedDict(hidden=nn.Linear(2, 10), predict=nn.Linear(10, 3), relu=nn.ReLU())
    ),
    "layer too wide for the next": lambda: altered(lambda net: setattr(net, "hidden", nn.Linear(2, 11))),
    "layer that tells another width": lambda: altered(lambda net: setattr(net.hidden, "in_features", 3)),
    "network of another width": lambda: new(sizes=(2, 11, 3)),
    "no bias": lambda: altered(lambda net: setattr(net, "hidden", nn.Linear(2, 10, bias=False))),
    "float64": lambda: new().double(),
    "frozen": lambda: new().requires_grad_(False),
    "transposed strides": lambda: altered(lambda net: setattr(net.hidden, "weight", nn.Parameter(torch.rand(2, 10).T))),
    "nan": lambda: altered(lambda net: nn.init.constant_(net.get_parameter("hidden.bias"), torch.nan)),
    "inf": lambda: altered(lambda net: nn.init.constant_(net.get_parameter("hidden.bias"), torch.inf)),
    "evaluation mode": lambda: new().eval(),
    "other object": lambda: {"hidden.weight": 1},
    "state dict of another width": lambda: new(sizes=(2, 11, 3)).state_dict(),
    "state dict of a plain Sequential": lambda: nn.Sequential(
        nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 3)
    ).state_dict(),
    "state dict with one tensor more": lambda: OrderedDict(new().state_dict(), more=torch.zeros(1)),
}


def refused(content: bytes, blueprint: Blueprint = PLAIN, *, of_any_size: bool = True) -> None:
    """Assert that all readers refuse the file in one line, also the one for networks of any size if so asked."""
    Path("model.pkl").write_bytes(content)
    for restore in (
        lambda: models.restore_net("model.pkl", blueprint),
        lambda: models.restore_params("model.pkl", blueprint),
        lambda: models.load("model.pkl"),
    )[: 3 if of_any_size else 2]:
        with pytest.raises(UserError, match=r"^model.pkl: (is|does) not [^\n]*(`|stages/network.py)$"):
            restore()


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_but_our_network_is_refused_and_nothing_in_it_runs(name: str) -> None:
    refused(bytes_of(HOSTILE[name]()), of_any_size="of another width" not in name)
    assert not Path("trap").exists()


def named(change: Callable[[Any], object]) -> nn.Module:
    """Return a network with columns, changed."""
    net = NAMED.build()
    change(net)
    return net


HOSTILE_COLUMNS: dict[str, Callable[[], object]] = {
    "hook": lambda: named(lambda net: net.register_forward_hook(print)),
    "hook inside": lambda: named(lambda net: net.net._forward_hooks.update({0: nn.ReLU()})),
    "forward that shadows": lambda: named(lambda net: net.__dict__.update(forward=nn.ReLU())),
    "call instead of columns": lambda: named(lambda net: setattr(net, "columns", Call(os.system, " ".join(TRAP)))),
    "no columns": lambda: named(lambda net: setattr(net, "columns", None)),
    "columns that are no JSON": lambda: named(lambda net: setattr(net, "columns", '{"features"')),
    "columns of another number": lambda: named(lambda net: setattr(net, "columns", net.columns.replace('"b",', ""))),
    "one column twice": lambda: named(lambda net: setattr(net, "columns", net.columns.replace('"b"', '"c"'))),
    "columns twice": lambda: named(lambda net: setattr(net, "more", net.columns)),
    "nan": lambda: named(lambda net: net.x_mean.fill_(torch.nan)),
    "float32 statistics": lambda: named(lambda net: net.float()),
    "another network inside": lambda: named(lambda net: setattr(net, "net", nn.Linear(2, 3))),
    "a network with columns inside": lambda: Tabular(NAMED.build(), NAMED.columns),  # type: ignore[arg-type]
    "call in the state": lambda: OrderedDict(NAMED.build().state_dict(), _extra_state=Call(os.system, " ".join(TRAP))),
    "no columns in the state": lambda: OrderedDict(
        (name, value) for name, value in NAMED.build().state_dict().items() if name != "_extra_state"
    ),
}


@pytest.mark.parametrize("name", HOSTILE_COLUMNS)
def test_anything_but_our_network_with_columns_is_refused_and_nothing_in_it_runs(name: str) -> None:
    refused(bytes_of(HOSTILE_COLUMNS[name]()), NAMED)
    assert not Path("trap").exists()


def refusals(blueprint: Blueprint) -> list[str]:
    """Return what is said of net.pkl and net_params.pkl in place of a network like this, up to what to do."""
    refused = []
    for restore, path in ((models.restore_net, "net.pkl"), (models.restore_params, "net_params.pkl")):
        with pytest.raises(UserError) as raised:
            restore(path, blueprint)
        text = str(raised.value).removeprefix(
            f"{path}: does not hold the network of params.yaml and stages/network.py: "
        )
        refused.append(text.removesuffix(": undo the change, or run `dvc repro --force train`"))
    return refused


def save(net: nn.Module) -> None:
    models.save_net("net.pkl", net)
    models.save_params("net_params.pkl", net)


def test_a_network_that_knows_other_columns_is_refused() -> None:
    save(NAMED.build())
    columns = Columns(features=["sex"], targets=["ä", "b", "other"], categories={"sex": ["f", "m"]})
    other = "stored.targets is ['ä', 'b', 'c'] instead of ['ä', 'b', 'other']"
    assert refusals(NAMED._replace(columns=columns)) == [other, other]
    assert refusals(PLAIN) == ["its class is 'Tabular' instead of 'Net'", "it has no hidden.weight ((10, 2))"]


@pytest.mark.parametrize("hidden", [1, 9, 11, 1000])
def test_other_sizes_are_named_with_those_that_are_expected(hidden: int) -> None:
    save(new())
    expected = PLAIN._replace(section=Network(style="module", hidden=hidden))
    assert refusals(expected) == [f"hidden.weight is (10, 2) instead of ({hidden}, 2)"] * 2


def test_a_network_is_no_state_dict_and_the_other_way_round() -> None:
    Path("net.pkl").write_bytes(bytes_of(new().state_dict()))
    Path("net_params.pkl").write_bytes(bytes_of(new()))
    assert refusals(PLAIN) == ["it holds a state dict or something else", "it holds a whole network"]


def test_a_file_of_far_more_bytes_is_refused_for_that() -> None:
    save(new())
    for path in ("net.pkl", "net_params.pkl"):
        os.truncate(path, 1 << 20)
    for text in refusals(PLAIN):
        assert re.fullmatch(r"it has 1048576 bytes instead of \d{4}", text)


EDITS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {  # a new layer, and what is said of both files
    "another rate": (lambda: nn.Dropout(0.1), "more.p is 0.2 instead of 0.1{fits}", ""),
    "another layer": (nn.Tanh, "more is 'Dropout' instead of 'Tanh'{fits}", ""),
    "a layer less": (lambda: nn.Sequential(), "more is 'Dropout' instead of 'Sequential'{fits}", ""),
    "a layer more": (
        lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(3, 3)),
        "more is 'Dropout' instead of 'Sequential'",
        "it has no more.1.weight ((3, 3))",
    ),
    "another mode": (lambda: nn.Dropout(0.2).eval(), "more.training is True instead of False{fits}", ""),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_an_edit_of_the_network_has_changed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new_layer, of_net, of_params = EDITS[name]

    def styles(layer: Callable[[], nn.Module]) -> dict[str, Callable[..., nn.Module]]:
        def sequential(n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
            layers = OrderedDict(hidden=nn.Linear(n_feature, n_hidden), predict=nn.Linear(n_hidden, n_output))
            return nn.Sequential(layers | {"more": layer()})

        return {"module": sequential}

    monkeypatch.setattr(network, "STYLES", styles(lambda: nn.Dropout(0.2)))
    save(new())
    monkeypatch.setattr(network, "STYLES", styles(new_layer))
    told = of_net.format(fits="; its state dict, as in net_params.pkl, still fits")
    if of_params:
        assert refusals(PLAIN) == [told, of_params]
    else:
        with pytest.raises(UserError, match=re.escape(told)):
            models.restore_net("net.pkl", PLAIN)
        assert isinstance(models.restore_params("net_params.pkl", PLAIN), nn.Sequential)


class Smooth(Net):
    """The network with another activation, which its parameters do not show."""

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.hidden(x).tanh())


class Dropping(Net):
    """The network with dropout, which its predictions do not show."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, training=self.training))


STYLE_EDITS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "layers": (Deep, "hidden.weight is missing in one and (10, 2) in the other"),
    "activation": (Smooth, "with equal parameters they predict differently in evaluation mode"),
    "dropout": (Dropping, "with equal parameters they predict differently in training mode"),
}


@pytest.mark.parametrize("name", STYLE_EDITS)
def test_styles_that_are_not_the_same_network_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edited, words = STYLE_EDITS[name]
    monkeypatch.setitem(network.STYLES, "module", edited)
    with pytest.raises(UserError) as raised:
        models.check(PLAIN.build(), PLAIN, torch.rand(16, 2))
    start, end = (
        "stages/network.py: the styles module and sequential must be the same network, but ",
        ": change sequential too, or remove it from STYLES and from the choices of network.style",
    )
    assert str(raised.value).startswith(start) and str(raised.value).endswith(end)
    assert words in str(raised.value) or name == "layers"
    with pytest.raises(UserError, match="the styles sequential and module must be the same network"):
        models.check(PLAIN.in_style("sequential").build(), PLAIN.in_style("sequential"), torch.rand(16, 2))


def test_one_style_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(network.STYLES, "sequential")
    monkeypatch.setitem(network.STYLES, "module", Smooth)
    net = stepped(new())
    models.check(net, PLAIN, torch.rand(16, 2))
    save(net)
    x = torch.rand(20, SIZES[0])
    for path in ("net.pkl", "net_params.pkl"):
        assert torch.equal(models.load(path)(x), net(x))


def test_the_same_network_in_both_styles_passes_and_no_random_number_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Deep, "sequential": deep_sequential})
    before = torch.get_rng_state()
    models.style_difference(new(), new("sequential"), torch.rand(16, 2, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)
    models.check(new(), PLAIN, torch.rand(16, 2))


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
    net, x = stepped(tuned.build()).eval(), torch.rand(20, SIZES[0])
    save(net.train())
    for path in ("net.pkl", "net_params.pkl"):
        loaded = models.load(path)
        assert loaded.get_submodule("net.1").p == 0.25
        assert torch.equal(loaded(x), net.eval()(x))
        assert loaded.names == NAMED.columns
    words = "stored.network is {'depth': 2, 'rate': 0.25} instead of {'depth': 3, 'rate': 0.25}"
    assert refusals(tuned._replace(section=Tuned(style="module", hidden=10, rate=0.25, depth=3))) == [words] * 2

    save(tuned._replace(columns=None).build())
    for path in ("net.pkl", "net_params.pkl"):
        with pytest.raises(UserError) as raised:
            models.load(path)
        assert str(raised.value) == (
            f"{path}: does not store network.depth, network.rate: use restore_net or restore_params with these params, "
            "or train with `network.standardize: true`, which stores them, by `dvc repro`"
        )


def rezipped(
    *,
    compress: int = zipfile.ZIP_STORED,
    rename: dict[str, str] | None = None,
    replace: dict[str, bytes] | None = None,
    more: dict[str, bytes] | None = None,
) -> bytes:
    """Return an archive of our network, rewritten with changes."""
    source, target = zipfile.ZipFile(io.BytesIO(bytes_of(new()))), io.BytesIO()
    with source, zipfile.ZipFile(target, "w", compress) as archive:
        for name in source.namelist():
            archive.writestr((rename or {}).get(name, name), (replace or {}).get(name, source.read(name)))
        for name, data in (more or {}).items():
            archive.writestr(name, data)
    return target.getvalue()


def test_a_plainly_rezipped_archive_of_ours_is_ours() -> None:
    Path("model.pkl").write_bytes(rezipped())
    assert isinstance(models.restore_net("model.pkl", PLAIN), Net)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        pickle.dumps(Call(os.system, "touch trap")),
        rezipped(compress=zipfile.ZIP_DEFLATED),
        rezipped(more={"archive/bomb": b"\0" * 10**8}),
        rezipped(more={"../../trap": b"x"}),
        rezipped(more={"/trap": b"x"}),
        rezipped(rename={"archive/data/0": "archive/../data/0"}),
        rezipped(replace={"archive/.data/serialization_id": b"\xff" * 40}),
        bytes_of(new()) + bytes(10**5),
    ],
    ids=["empty", "text", "bare pickle", "deflated", "bomb", "traversal", "absolute", "renamed", "no text", "tail"],
)
def test_archives_that_are_not_as_torch_writes_them_are_refused(content: bytes) -> None:
    refused(content)
    assert not Path("trap").exists()
    assert not Path("../../trap").exists()


def test_a_symbolic_link_in_an_archive_is_never_followed() -> None:
    entry = zipfile.ZipInfo("archive/data/0")
    entry.external_attr = 0o120777 << 16
    target = io.BytesIO(bytes_of(new()))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(target, "a") as archive:
        archive.writestr(entry, "/etc/passwd")
    refused(target.getvalue())


def test_a_missing_file_and_a_folder_say_what_to_do() -> None:
    Path("folder.pkl").mkdir()
    with pytest.raises(UserError, match=r"^nowhere.pkl: is missing: run `dvc repro`$"):
        models.restore_net("nowhere.pkl", PLAIN)
    with pytest.raises(
        UserError, match=r"^folder.pkl: cannot be read: Is a directory: fix this, then run `dvc repro`$"
    ):
        models.restore_net("folder.pkl", PLAIN)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names")
def test_a_pipe_and_a_device_are_reported_rather_than_waited_for() -> None:
    os.mkfifo("net.pkl")
    for path in ("net.pkl", "/dev/zero"):
        with pytest.raises(
            UserError, match=f"^{path}: cannot be read: Not a regular file: fix this, then run `dvc repro`$"
        ):
            models.restore_net(path, PLAIN)
        with pytest.raises(
            UserError, match=f"^{path}: cannot be read: Not a regular file: fix this, then run `dvc repro`$"
        ):
            models.restore_params(path, PLAIN)


FIRST = new()
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
