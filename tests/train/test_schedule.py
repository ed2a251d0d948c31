"""Schedules of the learning rate, against those of torch in a plain loop."""

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from stages import dataset, network
from stages.runtime.errors import UserError
from stages.train.optim import Schedule, ScheduleName, options_in_full
from tests.train.test_stage import SETTINGS, losses, trained, write_points

EPOCHS = SETTINGS["epochs"]
EXAMPLES: dict[str, dict[str, Any]] = {
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "CosineAnnealingLR": {"eta_min": 0.01},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "step_size_up": 4},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {},
    "MultiStepLR": {"milestones": [2, 4, 4]},
    "OneCycleLR": {},
    "PolynomialLR": {"power": 2},
    "ReduceLROnPlateau": {"patience": 0, "threshold": 0.05},
    "StepLR": {"step_size": 3},
}
IMPLIED: dict[str, dict[str, Any]] = {
    "CosineAnnealingLR": {"T_max": EPOCHS},
    "CyclicLR": {"max_lr": 0.2},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": EPOCHS},
    "PolynomialLR": {"total_iters": EPOCHS},
}


@pytest.fixture(autouse=True)
def in_folder_with_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_schedule_sets_the_learning_rates_and_trains_to_the_bits_of_a_plain_loop(
    name: str, optimizer: str
) -> None:
    x, y, *_ = dataset.read("data/train.pt")
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=SETTINGS["seed"])
    descent = getattr(torch.optim, optimizer)(net.parameters(), lr=0.2)
    scheduler = getattr(lr_scheduler, name)(descent, **EXAMPLES[name] | IMPLIED.get(name, {}))
    rates = []
    for _ in range(EPOCHS):
        rates.append(descent.param_groups[0]["lr"])
        loss = nn.functional.mse_loss(net(x), y)
        descent.zero_grad()
        loss.backward()
        descent.step()
        scheduler.step(*[loss.item()] * (name == "ReduceLROnPlateau"))
    state = trained(optimizer=optimizer, schedule=name, schedule_options=EXAMPLES[name])
    assert all(torch.equal(state[key], values) for key, values in net.state_dict().items())
    assert losses("learning_rate") == [float(f"{rate:.9g}") for rate in rates]
    assert len(set(rates)) > 1


def test_a_plateau_is_one_of_the_validation_loss_where_points_are_held_back() -> None:
    def rates(column: str) -> list[float]:
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.2)
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        rates = []
        for loss in losses(column):
            rates.append(float(f"{optimizer.param_groups[0]['lr']:.9g}"))
            scheduler.step(loss)
        return rates

    options: dict[str, Any] = {"patience": 0, "factor": 0.8}
    trained(
        epochs=100,
        validation_fraction=0.3,
        optimizer_options={"momentum": 0.9},
        schedule="ReduceLROnPlateau",
        schedule_options=options,
    )
    assert losses("learning_rate") == rates("validation_loss") != rates("loss")


def test_every_schedule_of_torch_that_takes_plain_options_can_be_named() -> None:
    members = {name: member for name, member in vars(lr_scheduler).items() if name in lr_scheduler.__all__}
    of_functions = {"LambdaLR", "MultiplicativeLR"}
    of_schedulers = {name for name, member in members.items() if "schedulers" in inspect.signature(member).parameters}
    assert of_schedulers == {"ChainedScheduler", "SequentialLR"}
    assert members.keys() - of_functions - of_schedulers - {"LRScheduler"} == set(get_args(ScheduleName))


def test_options_that_params_yaml_names_are_not_overridden() -> None:
    for name, implied in [("CosineAnnealingLR", "T_max"), ("PolynomialLR", "total_iters"), ("CyclicLR", "max_lr")]:
        assert options_in_full(name, {implied: 7}, 20, 0.2) == {implied: 7}  # type: ignore[arg-type]
    for given in ({"total_steps": 30}, {"epochs": 30}, {"epochs": 10, "steps_per_epoch": 3}):
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.2)
        schedule = Schedule("OneCycleLR", options_in_full("OneCycleLR", given, 20, 0.2), optimizer)
        assert schedule.scheduler.total_steps == 30


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("StepLR", {}, "missing 1 required positional argument: 'step_size'"),
        ("StepLR", {"step_size": 3, "gama": 0.5}, "unexpected keyword argument 'gama'"),
        ("StepLR", {"step_size": 0}, "by zero"),
        ("CyclicLR", {}, "missing 1 required positional argument: 'base_lr'"),
        ("ConstantLR", {"factor": 2}, "Constant multiplicative factor expected to be between 0 and 1."),
        ("OneCycleLR", {"total_steps": 19}, "Tried to step 20 times. The specified number of total steps is 19"),
        ("ReduceLROnPlateau", {"patience": 3, "min_lr": "low"}, "not supported between instances of 'str' and 'float'"),
        ("ExponentialLR", {"gamma": 0.9, "last_epoch": 3}, "param 'initial_lr' is not specified"),
        ("ExponentialLR", {"gamma": -1.0}, "it sets a learning rate of -"),
    ],
)
def test_options_that_the_schedule_refuses_are_reported_in_one_line_before_training(
    name: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError) as caught:
        trained(schedule=name, schedule_options=options)
    assert str(caught.value).startswith(f"params.yaml: train.schedule: {name} with options {{")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path(".checkpoint").exists()


@pytest.mark.parametrize(
    ("name", "options", "epochs"),
    [
        ("OneCycleLR", {"anneal_strategy": "linear"}, 20),
        ("ExponentialLR", {"gamma": -1.0}, 1),
        ("StepLR", {"step_size": 20, "gamma": -1.0}, 20),
    ],
)
def test_a_learning_rate_after_the_last_step_is_not_refused(name: str, options: dict[str, Any], epochs: int) -> None:
    trained(schedule=name, schedule_options=options, epochs=epochs)
    rates = losses("learning_rate")
    assert len(rates) == epochs
    assert min(rates) > 0


def test_a_schedule_that_cycles_momentum_is_refused_by_an_optimizer_without() -> None:
    with pytest.raises(UserError, match="optimizer must support momentum or beta1"):
        trained(optimizer="Adagrad", schedule="OneCycleLR")


def test_a_state_with_other_keys_is_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.2)
    schedule = Schedule("StepLR", {"step_size": 3}, optimizer)
    with pytest.raises(ValueError, match="must have the keys of this schedule"):
        schedule.load_state_dict({"step": 1})


def test_the_lesson_has_no_column_of_learning_rates() -> None:
    trained()
    assert Path("data/loss.csv").read_text().startswith("epoch,loss\n")
