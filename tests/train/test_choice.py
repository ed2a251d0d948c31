"""Which steps `train.steps: auto` chooses."""

from typing import Any

import pytest
import torch

from stages.train.batches import Batches, Points
from stages.train.choice import choose_steps
from stages.train.ranks import Ranks
from stages.train.settings import Train
from stages.train.steps import NotCompiledError, Steps
from tests.train.test_stage import SETTINGS

EAGER: Any = "eager"
COMPILED: Any = "compiled"


def chosen(steps: str, *, n: int = 100, size: int | None = None, parameters: int = 31, epochs: int = 200) -> Any:
    def compiled() -> Steps:
        return COMPILED

    batches = Batches(Points(torch.zeros(n, 1), torch.zeros(n, 1), n), size, 1000, Ranks(), [0])
    return choose_steps(Train(**SETTINGS | {"steps": steps, "epochs": epochs}), batches, parameters, EAGER, compiled)


def test_steps_are_those_that_are_asked_for() -> None:
    assert chosen("eager", epochs=10**6) == (EAGER, "")
    assert chosen("compiled") == (COMPILED, "")


def test_auto_compiles_if_eager_steps_take_long() -> None:
    assert chosen("auto") == (EAGER, "eager steps, since they take only about 0.06 s")
    assert chosen("auto", epochs=16_000) == (EAGER, "eager steps, since they take only about 5 s")
    assert chosen("auto", epochs=17_000) == (COMPILED, "compiled steps")
    assert chosen("auto", size=10, epochs=2_000) == (COMPILED, "compiled steps")
    assert chosen("auto", n=1_000_000, epochs=200) == (COMPILED, "compiled steps")
    assert chosen("auto", n=1_000, parameters=100_000, epochs=60) == (COMPILED, "compiled steps")


def test_auto_is_eager_if_compiling_is_impossible() -> None:
    def compiled() -> Steps:
        raise NotCompiledError("need the C++ compiler g++", "install it, or use eager")

    points = torch.zeros(100, 1)
    batches = Batches(Points(points, points, 100), None, 1000, Ranks(), [0])
    long = Train(**SETTINGS | {"steps": "auto", "epochs": 10**6})
    assert choose_steps(long, batches, 31, EAGER, compiled) == (
        EAGER,
        "eager steps, since compiled steps need the C++ compiler g++",
    )
    with pytest.raises(
        NotCompiledError, match=r"^params.yaml: train.steps: compiled steps need the C\+\+ compiler g\+\+: "
    ):
        choose_steps(Train(**SETTINGS | {"steps": "compiled"}), batches, 31, EAGER, compiled)
