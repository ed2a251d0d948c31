import copy
import csv
import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages import dataset, history, network
from stages.dataset import Dataset
from stages.generate import stage as generate
from stages.generate.curve import Curve
from stages.network import Network
from stages.runtime.errors import UserError
from stages.train import checkpoint, training
from stages.train import stage as train
from stages.train.loop import descend
from stages.train.optim import OptimizerName
from stages.train.parallel import on_all_ranks
from stages.train.ranks import Ranks
from stages.train.settings import Train
from stages.train.steps import EagerSteps
from tests.conftest import Copy
from tests.train.batched import batched

pytestmark = pytest.mark.slow  # it trains again and again

SETTINGS: dict[str, Any] = {
    "launcher": "python",
    "device": "cpu",
    "epochs": 20,
    "batch_size": None,
    "micro_batch_size": None,
    "learning_rate": 0.2,
    "optimizer": "SGD",
    "optimizer_options": {},
    "loss": "MSELoss",
    "snapshot_every": 8,
    "seed": 11,
}


@pytest.fixture(autouse=True)
def in_folder_with_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)


def write_points(points: int) -> None:
    curve = Curve(source="curve", points=points, test_points=1, low=-1.0, high=1.0, noise=0.2, seed=1)
    generate.run(generate.Params(kernels="portable", generate=curve))


def run(style: str = "module", standardize: bool = False, **changes: Any) -> str:
    """Run the stage; return what it says of itself."""
    net = Network.model_validate({"style": style, "hidden": 10, "standardize": standardize})
    return train.run(train.Params(kernels="portable", network=net, train=Train(**SETTINGS | changes)))


def trained(style: str = "module", **changes: Any) -> dict[str, Tensor]:
    """Run the stage; return the state dict that it models."""
    run(style, **changes)
    return torch.load("data/net_params.pkl", weights_only=True)


def losses(column: str = "loss") -> list[float]:
    return history.read_losses("data/loss.csv")[column].tolist()


def five_steps(
    name: str, loss_function: nn.Module, epochs: int, **options: Any
) -> tuple[dict[str, Tensor], list[float]]:
    """The lesson as a newcomer writes it."""
    x, y, *_ = dataset.read("data/train.pt")
    torch.manual_seed(SETTINGS["seed"])
    net = network.Net(1, 10, 1)
    optimizer = getattr(torch.optim, name)(net.parameters(), **options)
    losses = []
    for _ in range(epochs):
        prediction = net(x)
        loss = loss_function(prediction, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return net.state_dict(), losses


@pytest.mark.parametrize(
    ("name", "options", "loss"),
    [
        ("SGD", {}, "MSELoss"),
        ("SGD", {"momentum": 0.9, "nesterov": True}, "L1Loss"),
        ("Adam", {"betas": [0.8, 0.99]}, "SmoothL1Loss"),
        ("AdamW", {"weight_decay": 0.1}, "HuberLoss"),
    ],
)
def test_training_is_the_five_steps_to_the_last_bit(name: str, options: dict[str, Any], loss: str) -> None:
    expected, expected_losses = five_steps(name, getattr(nn, loss)(), 20, lr=0.01, **options)
    state = trained(optimizer=name, learning_rate=0.01, optimizer_options=options, loss=loss)
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert [f"{value:.9g}" for value in losses()] == [f"{value:.9g}" for value in expected_losses]


def test_shuffled_batches_are_steps_on_those_points_and_the_last_short_one_weighs_less() -> None:
    x, y, *_ = dataset.read("data/train.pt")
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=SETTINGS["seed"])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    expected = []
    for epoch in range(3):
        total = 0.0
        for batch in batched(x, y, 30, 1000, Ranks(), SETTINGS["seed"]).epoch(epoch):
            (micro,) = batch.micro_batches
            loss = nn.functional.mse_loss(net(micro.x), micro.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(micro.x)
        expected.append(total / 100)
    state = trained(batch_size=30, epochs=3)
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())
    assert losses() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "changes", [{}, {"batch_size": 33}, {"optimizer": "LBFGS", "optimizer_options": {"max_iter": 3}}]
)
def test_micro_batches_change_nothing_but_rounding(changes: dict[str, Any]) -> None:
    expected = trained(epochs=2, **changes)
    expected_losses = losses()
    state = trained(epochs=2, micro_batch_size=7, **changes)
    torch.testing.assert_close(state, expected, rtol=1e-3, atol=1e-5)
    assert losses() == pytest.approx(expected_losses, rel=1e-3)


def test_the_gradient_of_many_points_is_that_of_float64() -> None:
    write_points(1_000_000)
    x, y, *_ = dataset.read("data/train.pt")
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=0)
    exact = copy.deepcopy(net).double()
    nn.functional.mse_loss(exact(x.double()), y.double()).backward()
    full = batched(x, y, None, 65_536, Ranks(), 0).share_of_all
    everywhere = on_all_ranks(net, nn.MSELoss(), Ranks())
    next(descend(torch.optim.SGD(net.parameters(), lr=1e-30), [full], everywhere))
    for ours, theirs in zip(net.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert (ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max() < 1e-5


def test_how_steps_are_taken_touches_nothing_but_train(done: Copy) -> None:
    done.set(train__steps="compiled")
    assert json.loads(done.run("dvc", "status", "--json")).keys() == {"train"}


@pytest.mark.parametrize(
    ("kernels", "steps", "any_processor"),
    [("portable", "eager", True), ("portable", "compiled", False), ("native", "eager", False)],
)
def test_the_bits_depend_on_the_processor_unless_steps_are_eager_and_kernels_portable(
    kernels: str, steps: str, any_processor: bool
) -> None:
    processor = checkpoint.of_machine(kernels, steps, Ranks())["processor"]
    assert processor.startswith("any, ") is any_processor
    assert processor.startswith(f"{checkpoint.processor_model()}, ") is not any_processor


def test_a_checkpoint_fits_only_what_takes_its_steps_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Steps(EagerSteps):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.fingerprint = {"compiled library": library}

    monkeypatch.setattr(training, "EagerSteps", Steps)
    for other, fits in [("one", True), ("another", False)]:
        library = "one"
        trained(epochs=3)
        assert "Resuming" not in capsys.readouterr().err
        library = other
        trained(epochs=5)
        assert ("Resuming from the checkpoint" in capsys.readouterr().err) is fits
        Path(".checkpoint/train").unlink()


def test_both_styles_train_to_the_same_bits() -> None:
    module, sequential = trained("module"), trained("sequential")
    assert module.keys() == sequential.keys()
    assert all(torch.equal(module[key], sequential[key]) for key in module)


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_each_optimizer_of_torch_trains_or_is_refused(name: str) -> None:
    if name in ("Muon", "SparseAdam"):  # made for matrices alone, and for sparse gradients
        with pytest.raises(UserError, match=f"^params.yaml: train.optimizer: {name} with options .* cannot train"):
            trained(optimizer=name, learning_rate=0.001)
    else:
        trained(optimizer=name, learning_rate=0.001)
        assert losses()[-1] < losses()[0]


def test_every_optimizer_of_torch_can_be_named() -> None:
    members = vars(torch.optim).values()
    optimizers = {member for member in members if isinstance(member, type) and issubclass(member, Optimizer)}
    assert {optimizer.__name__ for optimizer in optimizers - {Optimizer}} == set(get_args(OptimizerName))


def test_lbfgs_searches_with_as_many_gradients_as_it_wants() -> None:
    trained(optimizer="LBFGS", learning_rate=1, optimizer_options={"line_search_fn": "strong_wolfe"})
    assert losses()[-1] < 0.0035  # what SGD does not reach in ten times the epochs


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"momentun": 0.9}, "unexpected keyword argument 'momentun'"),
        ({"momentum": -1}, "Invalid momentum value: -1"),
        ({"momentum": "0.9"}, "not supported between instances of 'str' and 'float'"),
        ({"lr": 1}, "multiple values for keyword argument 'lr'"),
        ({"differentiable": True}, "a leaf Variable that requires grad is being used in an in-place operation"),
    ],
)
def test_options_that_the_optimizer_refuses_are_reported_in_one_line(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError) as caught:
        trained(optimizer_options=options)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_stops_training_and_names_the_epoch() -> None:
    _, expected = five_steps("SGD", nn.MSELoss(), 50, lr=100)
    epoch = next(index for index, loss in enumerate(expected) if not math.isfinite(loss))
    with pytest.raises(UserError, match=f"^the loss is (nan|inf) at epoch {epoch}: lower train.learning_rate$"):
        trained(learning_rate=100, epochs=50)
    assert not Path("data/net.pkl").exists()


@pytest.mark.parametrize("batch_size", [None, 30])
def test_a_loss_that_is_not_finite_before_the_first_step_is_no_fault_of_the_learning_rate(
    batch_size: int | None,
) -> None:
    x = torch.full((100, 1), 1e30)
    dataset.write("data/train.pt", Dataset(x, x))
    with pytest.raises(
        UserError, match="^the loss is inf before the first step: set network.standardize to true, or scale the data$"
    ):
        trained(batch_size=batch_size)


def test_a_loss_that_is_not_finite_after_the_last_step_is_noticed() -> None:
    _, expected = five_steps("SGD", nn.MSELoss(), 50, lr=100)
    epoch = next(index for index, loss in enumerate(expected) if not math.isfinite(loss))
    with pytest.raises(UserError, match=f"at epoch {epoch}: "):
        trained(learning_rate=100, epochs=epoch)


def test_the_loss_table_has_one_row_per_epoch() -> None:
    trained()
    with Path("data/loss.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(20)]
    assert all(float(row["loss"]) > 0 for row in rows)


def test_snapshots_show_the_network_before_the_step_of_their_epoch_and_after_the_last() -> None:
    x, y, *_ = dataset.read("data/train.pt")
    shown = {}
    for epochs in (8, 16, 20):
        trained(epochs=epochs)
        net = network.Net(1, 10, 1)
        net.load_state_dict(torch.load("data/net_params.pkl", weights_only=True))
        shown[epochs] = net(x).detach()
    snapshots = history.read_snapshots("data/history.npz")
    assert snapshots.epochs.tolist() == [0, 8, 16, 20]
    assert snapshots.losses[:3].tolist() == pytest.approx([losses()[epoch] for epoch in (0, 8, 16)], rel=1e-7)
    assert snapshots.losses[3] == pytest.approx(nn.functional.mse_loss(shown[20], y).item())
    for epoch, prediction in zip(snapshots.epochs[1:], snapshots.predictions[1:], strict=True):
        assert torch.equal(torch.from_numpy(prediction), shown[int(epoch)])


def test_snapshots_show_at_most_a_thousand_points() -> None:
    write_points(12_345)
    trained(epochs=1)
    snapshots = history.read_snapshots("data/history.npz")
    assert snapshots.x.shape == snapshots.y.shape == (1000, 1)
    assert snapshots.x[[0, -1], 0].tolist() == [-1, 1]
    assert snapshots.predictions.shape == (2, 1000, 1)


def test_saved_files_are_the_same_bytes_every_time() -> None:
    names = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]
    trained()
    first = [Path(name).read_bytes() for name in names]
    trained()
    assert [Path(name).read_bytes() for name in names] == first


def test_a_device_that_is_not_there_is_reported_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"^params.yaml: train.device: cuda:63 is not available; available: cpu"):
        trained(device="cuda:63")


def test_any_device_that_is_there_trains_and_saves_cpu_tensors() -> None:
    state = trained(device="auto")
    assert {values.device.type for values in state.values()} == {"cpu"}
    assert losses()[-1] < losses()[0]
