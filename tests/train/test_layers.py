"""Other networks than the lesson's: forks that put other layers into stages/network.py, by real runs."""

import json
import re
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from stages.runtime.errors import UserError
from stages.train.layers import Demands, ensure_whole_batches, examine
from stages.train.ranks import Ranks
from tests.conftest import Copy
from tests.train.batched import batched
from tests.train.test_checkpoint import FILES, PYTHON, TWO_RANKS

LAYERS = {
    "deep": "nn.Linear(n_hidden, 9), nn.GELU(), nn.LayerNorm(9), nn.Linear(9, n_hidden), nn.Tanh()",
    "norm": "nn.BatchNorm1d(n_hidden), nn.ELU(), nn.Linear(n_hidden, n_hidden)",
    "dropout": "nn.Dropout(0.2), nn.Linear(n_hidden, n_hidden), nn.SiLU()",
}


def fork(copy: Copy, layers: str, **changes: object) -> None:
    """Put the layers before the output of both styles of the network, as somebody who forks the project would."""
    path = copy.path / "stages/network.py"
    text = path.read_text(encoding="utf-8")
    edits = {
        "        self.predict = ": f"        self.more = nn.Sequential({layers})\n        self.predict = ",
        "        x = F.relu(self.hidden(x))": "        x = self.more(F.relu(self.hidden(x)))",
        "            predict=nn.Linear": f"            more=nn.Sequential({layers}),\n            predict=nn.Linear",
    }
    for old, new in edits.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    copy.set(train__epochs=30, train__snapshot_every=10, train__learning_rate=0.05, **changes)


@pytest.mark.parametrize(("layers", "style"), [("deep", "module"), ("norm", "sequential"), ("dropout", "module")])
def test_a_fork_with_other_layers_trains_and_is_restored_both_ways(copy: Copy, layers: str, style: str) -> None:
    fork(copy, LAYERS[layers], network__style=style)
    for stage in ("generate", "train", "evaluate"):
        copy.stage(stage)
    assert json.loads(copy.read("data/metrics.json"))["max_abs_difference"] == 0
    expected = [copy.read(name) for name in FILES]
    copy.stage("train")
    assert [copy.read(name) for name in FILES] == expected  # dropout draws from the seed, too


def test_a_fork_with_dropout_and_frozen_weights_trains_on_two_ranks(copy: Copy) -> None:
    fork(copy, f"{LAYERS['deep']}, nn.Linear(n_hidden, n_hidden).requires_grad_(False)")
    copy.stage("generate")
    copy.run(*PYTHON)
    alone = torch.load(copy.path / "data/net_params.pkl", weights_only=True)
    copy.run(*TWO_RANKS)
    torch.testing.assert_close(torch.load(copy.path / "data/net_params.pkl", weights_only=True), alone)
    copy.stage("evaluate")


def test_what_batch_norm_keeps_is_that_of_whole_batches_in_threads_too(copy: Copy) -> None:
    fork(copy, LAYERS["norm"], generate__points=50_000)  # more than one micro-batch for other layers
    copy.stage("generate")
    copy.set(kernels="native", train__epochs=2)
    copy.stage("train", OMP_NUM_THREADS="2")
    native = torch.load(copy.path / "data/net_params.pkl", weights_only=True)
    copy.set(kernels="portable")
    copy.stage("train")
    portable = torch.load(copy.path / "data/net_params.pkl", weights_only=True)
    for name in ("more.0.running_mean", "more.0.running_var"):
        torch.testing.assert_close(native[name], portable[name], rtol=1e-3, atol=1e-4)
    assert native["more.0.num_batches_tracked"] == 2


def norm() -> nn.Module:
    return nn.Sequential(OrderedDict(hidden=nn.Linear(1, 10), norm=nn.BatchNorm1d(10), predict=nn.Linear(10, 1)))


@pytest.mark.parametrize(
    ("points", "size", "micro_size", "ranks", "message"),
    [
        (
            100,
            None,
            100,
            2,
            "train.launcher: must start one rank, since norm (BatchNorm1d) computes with whole batches",
        ),
        (
            100,
            None,
            99,
            1,
            "train.micro_batch_size: must be null or at least 100, since norm (BatchNorm1d) computes with "
            "whole batches, got 99",
        ),
        (100, 33, 33, 1, "train.batch_size: batches of 33 out of 100 points leave a batch of a single point, too"),
        (1, None, 1, 1, "train.batch_size: batches of 1 out of 1 point leave a batch of a single point, too"),
    ],
)
def test_a_layer_that_needs_whole_batches_is_named_where_it_does_not_get_them(
    points: int, size: int | None, micro_size: int, ranks: int, message: str
) -> None:
    x = torch.zeros(points, 1)
    batches = batched(x, x, size, micro_size, Ranks(0, ranks), 0)
    with pytest.raises(UserError, match=f"^params.yaml: {re.escape(message)}"):
        ensure_whole_batches(examine(norm(), x, x), batches)
    ensure_whole_batches(examine(nn.Linear(1, 1), x, x), batches)


@pytest.mark.parametrize(
    ("net", "got"),
    [
        (nn.Flatten(0), "float32 (2,)"),
        (nn.Linear(1, 2), "float32 (2, 2)"),
        (nn.Identity(), None),
        (nn.LSTM(1, 1), "tuple"),
    ],
)
def test_predictions_that_the_loss_would_broadcast_are_refused(net: nn.Module, got: str | None) -> None:
    x = torch.zeros(5, 1)
    if got is None:
        assert examine(net, x, x) == Demands()
    else:
        with pytest.raises(UserError) as caught:
            examine(net, x, x)
        assert str(caught.value) == f"stages/network.py: must predict float32 (2, 1) for x of float32 (2, 1), got {got}"


def test_a_layer_that_draws_random_numbers_is_noticed_and_the_network_left_as_it_was() -> None:
    x, y = torch.rand(2, 1), torch.rand(2, 10)
    for layer, draws in [(nn.ReLU(), False), (nn.Dropout(), True), (nn.RReLU(), True), (nn.BatchNorm1d(10), False)]:
        net = nn.Sequential(nn.Linear(1, 10), layer)
        before = [values.clone() for values in net.state_dict().values()]
        assert examine(net, x, y).seeds is draws
        assert all(map(torch.equal, net.state_dict().values(), before))


def test_whole_batch_layers_are_found() -> None:
    x = torch.zeros(1, 1)
    assert examine(norm(), x, x).whole_batches == ("norm (BatchNorm1d)",)
    assert not examine(nn.LayerNorm(1), x, x).whole_batches


class RunningMean(nn.Module):
    """Keeps the mean of the latest batch, as a person's own layer may."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = x.detach().mean().view(1)
        return x - self.mean


def test_a_persons_own_layer_that_keeps_something_of_a_batch_is_found() -> None:
    net = nn.Sequential(OrderedDict(mine=RunningMean(), predict=nn.Linear(1, 1)))
    assert examine(net, torch.ones(1, 1), torch.ones(1, 1)).whole_batches == ("mine (RunningMean)",)


def test_batch_norm_without_running_statistics_is_refused() -> None:
    net, x = nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(1, track_running_stats=False))), torch.zeros(5, 1)
    with pytest.raises(
        UserError, match=r"^stages/network.py: norm \(BatchNorm1d\) must have track_running_stats=True: "
    ):
        examine(net, x, x)


def edit_forward(copy: Copy, line: str) -> None:
    """Put a line before the first one of the network's `forward`."""
    path = copy.path / "stages/network.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("        x = F.relu(", f"        {line}\n        x = F.relu("), encoding="utf-8")


def test_a_network_that_could_not_be_restored_is_not_trained(copy: Copy) -> None:
    edit_forward(copy, "x = F.dropout(x)")
    copy.stage("generate")
    assert copy.stage("train", status=2).startswith(
        "stages/network.py: the network predicts differently once it is restored: "
    )


def test_a_bug_in_a_persons_own_network_keeps_its_traceback(copy: Copy) -> None:
    edit_forward(copy, "raise ValueError('mine')")
    copy.stage("generate")
    output = copy.stage("train", status=1)
    assert "Traceback" in output
    assert output.endswith("ValueError: mine\n")
