"""Trainings that resume wherever they were stopped, and that go on where one with fewer epochs ended."""

import copy
import hashlib
import os
import re
import shutil
import signal
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages import dataset, network
from stages.ensemble import seeds_of
from stages.models import Blueprint
from stages.network import Network
from stages.runtime.errors import UserError
from stages.train import layers, stage
from stages.train import progress as training_progress
from stages.train.batches import Batches
from stages.train.checkpoint import store
from stages.train.checkpoint.store import FINISHED, FINISHED_BYTES, PATH, STOP_SIGNALS, Checkpoint
from stages.train.ranks import Ranks
from stages.train.record import Record, snapshot_points
from stages.train.settings import Train
from stages.train.training import train
from stages.train.validation import folds_of, hold_back
from tests.conftest import posix_errors
from tests.train.test_stage import SETTINGS, trained, write_points

pytestmark = pytest.mark.slow  # it trains again and again

OUTPUTS = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]
CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"optimizer_options": {"momentum": 0.9}},
    "adam": {"optimizer": "Adam", "learning_rate": 0.01},
    "lbfgs": {"optimizer": "LBFGS", "learning_rate": 0.01, "optimizer_options": {"max_iter": 3}},
    "mini-batches": {"batch_size": 30, "optimizer_options": {"momentum": 0.9}},
    "step": {"schedule": "StepLR", "schedule_options": {"step_size": 3}},
    "milestones": {"schedule": "MultiStepLR", "schedule_options": {"milestones": [3, 9, 24]}, "batch_size": 60},
    "cycle": {"schedule": "CyclicLR", "schedule_options": {"base_lr": 0.01, "step_size_up": 3}},
    "validation": {"validation_fraction": 0.3, "batch_size": 30, "schedule": "ReduceLROnPlateau"},
    "patience": {"validation_fraction": 0.3, "patience": 2, "optimizer_options": {"momentum": 0.9}},
    "networks": {"networks": 3, "batch_size": 30, "optimizer": "Adam", "learning_rate": 0.01},
    "networks with patience": {
        "networks": 3,
        "validation_fraction": 0.3,
        "patience": 2,
        "schedule": "StepLR",
        "schedule_options": {"step_size": 3},
        "optimizer_options": {"momentum": 0.9},
    },
}


@pytest.fixture(autouse=True)
def in_folder_with_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)


def finished(**changes: Any) -> list[bytes]:
    """Run the stage to its end; return its outputs."""
    trained(**changes)
    stage.finish()
    return [Path(name).read_bytes() for name in OUTPUTS]


def from_scratch(**changes: Any) -> list[bytes]:
    Path(FINISHED).unlink(missing_ok=True)
    return finished(**changes)


def trained_once(changes: dict[str, Any], *, stopped: bool) -> tuple[list[Any], list[Any]]:
    """Train in this process, asked to stop from the first step on or not at all.

    Return the curves and the epochs of the snapshots, and the tensors of the network and the snapshots.
    """
    settings = Train(**SETTINGS | changes)
    points = dataset.read("data/train.pt")
    folds = folds_of(len(points.x), settings.validation_fraction, settings.networks, settings.seed)
    blueprint = Blueprint(network.Network(style="module", hidden=10), 1, 1, networks=settings.networks)
    net = stage.innermost(blueprint.build(settings.seed))
    training, held_back = hold_back(points.x, points.y, folds)
    seeds = seeds_of(settings.seed, settings.networks)
    batches = Batches(training, settings.batch_size, 1000, Ranks(), seeds)
    validation = held_back and Batches(held_back, None, 1000, Ranks(), seeds)
    checkpoint = Checkpoint({}, settings.epochs, Ranks())
    checkpoint.stopped = stopped
    shown = snapshot_points(points, folds)
    record = Record(shown.x, 1, settings.epochs, settings.snapshot_every, settings.networks)
    demands = layers.examine(blueprint.of_one().build(settings.seed), points.x, points.y)
    train(net, batches, validation, settings, record, checkpoint, demands)
    snapshots = record.snapshots(shown)
    bits = [values.numpy().tobytes() for values in net.state_dict().values()]
    return [record.curves(), snapshots.epochs.tolist()], [
        *bits,
        snapshots.losses.tobytes(),
        snapshots.predictions.tobytes(),
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_training_stopped_after_every_step_ends_with_the_bits_of_one_left_alone(case: str) -> None:
    ends_with_the_same_bits(CASES[case] | {"epochs": 12})


@pytest.mark.parametrize(
    ("layer", "networks"),
    [
        (nn.BatchNorm1d(10), 1),
        (nn.Dropout(0.2), 1),
        (nn.Dropout(0.2), 3),
        (nn.Sequential(nn.Dropout(0.2), nn.LayerNorm(10)), 3),
    ],
)
def test_a_network_that_keeps_means_or_draws_random_numbers_may_be_stopped_after_every_step(
    layer: nn.Module, networks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_layer(n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
        hidden, predict = nn.Linear(n_feature, n_hidden), nn.Linear(n_hidden, n_output)
        return nn.Sequential(OrderedDict(hidden=hidden, more=copy.deepcopy(layer), predict=predict))

    monkeypatch.setitem(network.STYLES, "module", with_layer)
    ends_with_the_same_bits({"batch_size": 30, "learning_rate": 0.02, "epochs": 5, "networks": networks})


def ends_with_the_same_bits(changes: dict[str, Any]) -> None:
    """Assert that a training stopped after every step does what one left alone does."""
    expected = trained_once(changes, stopped=False)
    Path(PATH).unlink()
    states = [b"", b"none"]
    while states[-1] != states[-2]:  # until the last epoch has ended
        with pytest.raises(UserError, match="^stopped at epoch .*; `dvc repro` resumes from there$"):
            trained_once(changes, stopped=True)
        states.append(Path(PATH).read_bytes())
    assert len(states) > len(expected[0][0]["loss"]) + 3  # one for each step, at least
    assert trained_once(changes, stopped=False) == expected


@pytest.mark.parametrize("case", CASES)
def test_more_epochs_go_on_to_the_bits_of_a_training_from_scratch(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = from_scratch(epochs=40, **CASES[case])
    from_scratch(epochs=19, **CASES[case])
    ended = len(Path("data/loss.csv").read_text().splitlines()) - 1
    assert capsys.readouterr().err == ""
    assert finished(epochs=40, **CASES[case]) == expected
    assert (
        capsys.readouterr().err
        == f"Continuing from epoch {ended} of the finished training, which had train.epochs: 19\n"
    )


def short_column(state: dict[str, Any]) -> None:
    columns = state["record"]["columns"]
    columns["learning_rate"] = columns["learning_rate"][:-1]


def best_weights_that_are_not_finite(state: dict[str, Any]) -> None:
    state["validation"]["best"]["hidden.bias"][0] = torch.nan


def weights_that_are_not_finite(state: dict[str, Any]) -> None:
    state["net"]["hidden.bias"][0] = torch.nan


def another_network(state: dict[str, Any]) -> None:
    state["net"] = {"weight": torch.zeros(3)}


def another_schedule(state: dict[str, Any]) -> None:
    state["schedule"] = {"step": "text"}


def no_position(state: dict[str, Any]) -> None:
    del state["position"]


def only_a_fingerprint(state: dict[str, Any]) -> None:
    for name in state.keys() - {"fingerprint"}:
        del state[name]


FORGERIES = [
    short_column,
    best_weights_that_are_not_finite,
    weights_that_are_not_finite,
    another_network,
    another_schedule,
    no_position,
    only_a_fingerprint,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_foreign_content_under_a_right_digest_is_reported_and_replaced(
    forge: Callable[[dict[str, Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    changes = CASES["validation"]
    expected = trained_once(changes, stopped=False)
    Path(PATH).unlink()
    for _ in range(9):
        with pytest.raises(UserError):
            trained_once(changes, stopped=True)
    state = store.unpacked(store.read(PATH))
    forge(state)
    store.write(PATH, state, durable=False)
    capsys.readouterr()
    assert trained_once(changes, stopped=False) == expected
    assert capsys.readouterr().err == "Not resuming: the checkpoint .checkpoint/train is damaged\n"


def text_under_a_right_digest(content: bytes) -> bytes:
    return hashlib.blake2b(b"text").digest() + b"text"


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda content: content[:-1],
    lambda content: content[:100] + b"\0" + content[101:],
    lambda content: b"",
    lambda content: content[:64],
    text_under_a_right_digest,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_reported_and_replaced(
    damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trained_once({}, stopped=False)
    with pytest.raises(UserError):
        trained_once({"epochs": 3}, stopped=True)
    path = Path(PATH)
    path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    assert trained_once({}, stopped=False) == expected
    assert capsys.readouterr().err == "Not resuming: the checkpoint .checkpoint/train is damaged\n"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"learning_rate": 0.1}, "train.learning_rate"),
        ({"seed": 12, "loss": "L1Loss"}, "train.loss, train.seed"),
        ({"hidden": 11}, "network.hidden"),
        ({"kernels": "native"}, "kernels, processor"),
        ({"points": 101}, "data/train.pt"),
        ({"launcher": "anything"}, ""),
    ],
)
def test_the_checkpoint_of_another_training_is_reported_and_replaced(
    changes: dict[str, Any], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(points: int = 100, hidden: int = 10, kernels: Any = "portable", **settings: Any) -> list[bytes]:
        write_points(points)
        net = Network.model_validate({"style": "module", "hidden": hidden})
        stage.run(stage.Params(kernels=kernels, network=net, train=Train(**SETTINGS | settings)))
        return [Path(name).read_bytes() for name in OUTPUTS]

    expected = run(**changes)
    Path(PATH).unlink()
    run()
    capsys.readouterr()
    assert run(**changes) == expected
    message = f"Not resuming: the checkpoint .checkpoint/train belongs to a run with different {names}; it is replaced"
    resumed = "Resuming from the checkpoint .checkpoint/train, at epoch 20 of 20"
    assert capsys.readouterr().err == f"{message if names else resumed}\n"


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_training_notes_what_asks_it_to_stop_unless_that_is_ignored(number: int) -> None:
    checkpoint = Checkpoint({}, 1, Ranks())
    former = signal.signal(number, signal.SIG_IGN)  # as nohup has SIGHUP ignored
    try:
        with checkpoint.on_stop():
            signal.raise_signal(number)
            assert not checkpoint.stopped
        signal.signal(number, signal.default_int_handler)
        with checkpoint.on_stop():
            signal.raise_signal(number)
            assert checkpoint.stopped
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, former)


@posix_errors
def test_a_checkpoint_that_cannot_be_written_is_reported_once_and_when_training_is_stopped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained_once({"epochs": 500}, stopped=False)
    shutil.rmtree(".checkpoint")
    Path(".checkpoint").write_text("a file where the folder should be")
    monkeypatch.setattr(training_progress, "INTERVAL", 0.0)
    monkeypatch.setattr(store, "INTERVAL", 0.0)
    assert trained_once({"epochs": 500}, stopped=False) == expected
    refusal, warning = capsys.readouterr().err.splitlines()
    assert refusal == "Not resuming: the checkpoint .checkpoint/train cannot be read: Not a directory"
    cannot = r".checkpoint/train: cannot be written: [^\n]+"
    assert re.fullmatch(f"Training continues without a checkpoint: {cannot}", warning)
    with pytest.raises(UserError, match=f"^stopped at epoch 0 of 500; without a checkpoint: {cannot}$"):
        trained_once({"epochs": 500}, stopped=True)


@posix_errors
def test_a_folder_or_a_pipe_in_place_of_the_checkpoint_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    expected = trained_once({}, stopped=False)
    path = Path(PATH)
    path.unlink()
    path.mkdir()
    (path / "file").touch()
    assert trained_once({}, stopped=False) == expected
    message = "Not resuming: the checkpoint .checkpoint/train cannot be read:"
    assert capsys.readouterr().err.startswith(f"{message} Is a directory\n")
    shutil.rmtree(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        assert trained_once({}, stopped=False) == expected
        assert capsys.readouterr().err.startswith(f"{message} Not a regular file")


def test_an_interrupted_training_may_be_continued_with_other_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    expected = [trained_once({"epochs": epochs}, stopped=False) for epochs in (3, 30)]
    Path(PATH).unlink()
    for _ in range(3):
        with pytest.raises(UserError):
            trained_once({"epochs": 20}, stopped=True)
    interrupted = Path(PATH).read_bytes()
    capsys.readouterr()
    for epochs, outcome in zip((3, 30), expected, strict=True):
        Path(PATH).write_bytes(interrupted)
        assert trained_once({"epochs": epochs}, stopped=False) == outcome
        message = f"Resuming from the checkpoint .checkpoint/train, at epoch 2 of {epochs}\n"
        assert capsys.readouterr().err == message


def test_an_interrupted_training_that_went_further_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    expected = trained_once({"epochs": 2, "batch_size": 30}, stopped=False)
    Path(PATH).unlink()
    for _ in range(9):  # four steps are an epoch: one into the third
        with pytest.raises(UserError):
            trained_once({"epochs": 20, "batch_size": 30}, stopped=True)
    capsys.readouterr()
    assert trained_once({"epochs": 2, "batch_size": 30}, stopped=False) == expected
    assert capsys.readouterr().err == (
        "Not resuming: the checkpoint .checkpoint/train belongs to a run with different train.epochs; it is replaced\n"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 19},  # `dvc repro --force`
        {"epochs": 18},
        {"epochs": 40, "seed": 12},
        {"epochs": 40, "schedule": "CosineAnnealingLR"},
    ],
)
def test_a_finished_training_that_does_not_fit_is_not_used_and_not_mentioned(
    changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = from_scratch(**changes)
    from_scratch(epochs=19)
    forged = Path(FINISHED).read_bytes()
    assert finished(**changes) == expected
    assert capsys.readouterr().err == ""
    assert Path(FINISHED).read_bytes() != forged or changes == {"epochs": 19}


def test_a_schedule_that_is_told_the_number_of_epochs_starts_from_scratch_with_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = from_scratch(epochs=40, schedule="CosineAnnealingLR")
    from_scratch(epochs=19, schedule="CosineAnnealingLR")
    assert finished(epochs=40, schedule="CosineAnnealingLR") == expected
    assert capsys.readouterr().err == ""
    fixed: dict[str, Any] = {"schedule": "CosineAnnealingLR", "schedule_options": {"T_max": 40}}
    from_scratch(epochs=19, **fixed)
    assert finished(epochs=40, **fixed)[0] == expected[0]
    assert capsys.readouterr().err == "Continuing from epoch 19 of the finished training, which had train.epochs: 19\n"


@pytest.mark.parametrize("content", [b"", b"text", bytes(64), None])
def test_a_finished_training_that_is_damaged_is_not_used_and_not_mentioned(
    content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = from_scratch(epochs=40)
    from_scratch(epochs=19)
    saved = Path(FINISHED).read_bytes()
    Path(FINISHED).write_bytes(saved[:-1] if content is None else content)
    assert finished(epochs=40) == expected
    assert capsys.readouterr().err == ""


def test_a_finished_training_is_used_where_an_interrupted_one_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    expected = from_scratch(epochs=40)
    from_scratch(epochs=19)
    with pytest.raises(UserError):
        trained_once({"epochs": 20}, stopped=True)  # with another fingerprint
    capsys.readouterr()
    assert finished(epochs=40) == expected
    refusal, going_on = capsys.readouterr().err.splitlines()
    assert refusal.startswith("Not resuming: the checkpoint .checkpoint/train belongs to a run with different ")
    assert going_on == "Continuing from epoch 19 of the finished training, which had train.epochs: 19"


@posix_errors
def test_a_finished_training_that_cannot_be_kept_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    Path(FINISHED).mkdir(parents=True)
    finished()
    assert capsys.readouterr().err == "The checkpoint .checkpoint/train cannot be moved: Is a directory\n"


def test_a_state_too_large_to_keep_is_removed() -> None:
    trained()
    with Path(PATH).open("ab") as file:
        file.truncate(FINISHED_BYTES + 1)
    stage.finish()
    assert not list(Path(".checkpoint").iterdir())
