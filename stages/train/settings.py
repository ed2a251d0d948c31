"""The section `train` of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.ensemble import MOST_NETWORKS
from stages.runtime.params import Exact, PointCount, Section, must_be
from stages.train.loss import LossName
from stages.train.optim import OptimizerName, OptimizerOptions, Options, ScheduleName, options_in_full

NOT_ELEMENTWISE = ("Adafactor", "LBFGS", "Muon", "ReduceLROnPlateau")  # they look at all parameters or losses at once
Epochs = Annotated[int, Field(gt=0, lt=2**31)]


class Train(Section):
    """The section `train` of params.yaml; the keys that have a default may be left out."""

    launcher: Annotated[str, Field(min_length=1)]
    device: Annotated[
        str, Field(pattern=r"^(cpu|cuda(:[0-9]{1,4})?|mps|auto)$"), must_be("cpu, cuda, cuda:N, mps or auto")
    ]
    networks: Annotated[int, Field(gt=0, le=MOST_NETWORKS)] = 1
    epochs: Epochs
    batch_size: PointCount | None
    micro_batch_size: PointCount | None
    learning_rate: Annotated[float, Field(gt=0, le=1e30), Exact]
    optimizer: OptimizerName
    optimizer_options: OptimizerOptions
    schedule: ScheduleName | None = None
    schedule_options: Options = Options()
    steps: Literal["eager", "compiled", "auto"] = "eager"
    loss: LossName
    validation_fraction: Annotated[float, Field(ge=0, lt=1), Exact] = 0
    patience: Epochs | None = None
    snapshot_every: Epochs
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    @field_validator("optimizer", "schedule")
    @classmethod
    def _for_several_networks(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name in NOT_ELEMENTWISE and info.data.get("networks", 1) > 1:
            raise ValueError("must be another one while train.networks is above 1: it would mix the networks")
        return name

    @field_validator("schedule_options")
    @classmethod
    def _only_with_a_schedule(cls, options: Options, info: ValidationInfo) -> Options:
        if options.given() and "schedule" in info.data and not info.data["schedule"]:
            raise ValueError("must be empty while train.schedule is null")
        return options

    @field_validator("patience")
    @classmethod
    def _only_with_validation(cls, patience: int | None, info: ValidationInfo) -> int | None:
        if patience and info.data.get("validation_fraction") == 0:
            raise ValueError("must be null while train.validation_fraction is 0")
        return patience

    @field_validator("snapshot_every")
    @classmethod
    def _at_most_a_million_snapshots(cls, every: int, info: ValidationInfo) -> int:
        if "epochs" in info.data and info.data["epochs"] > 10**6 * every:
            raise ValueError(f"must be at least a millionth of train.epochs ({info.data['epochs']})")
        return every

    def schedule_options_in_full(self) -> dict[str, Any]:
        """Return the options of the schedule, including those that follow from other params."""
        return options_in_full(self.schedule, self.schedule_options.given(), self.epochs, self.learning_rate)
