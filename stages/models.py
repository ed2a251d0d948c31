"""Save a trained network both ways, and restore it from a file that may come from a stranger.

A file is loaded only if torch.save would have written it for a network like the expected one: see runtime/restored.py.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from stages import network
from stages.columns import Columns, unnamed
from stages.dataset import Dataset
from stages.ensemble import MOST_NETWORKS, MOST_QUANTILES, Ensemble, Stack, seeds_of
from stages.network import Network
from stages.runtime import files
from stages.runtime.errors import UserError
from stages.runtime.restored import Loaded, outline, records_of, restored, saved
from stages.tabular import Tabular, model_columns

WHAT = "a model of this project"
READ_RATIO = 100  # a file more than this many times as large as expected is not loaded into memory
FITS = "; its state dict, as in net_params.pkl, still fits"
RETRAIN = "undo the change, or run `dvc repro --force train`"


class Blueprint(NamedTuple):
    """What a network is built from."""

    section: Network
    n_feature: int
    n_output: int
    columns: Columns | None = None  # of a Tabular, which stores them
    networks: int = 1
    quantiles: int = 0  # of the held-out errors of several networks

    @classmethod
    def of(cls, points: Dataset, section: Network, networks: int = 1) -> "Blueprint":
        """Return the blueprint of the network, or the networks, that these points are predicted with."""
        return cls(section, points.x.shape[1], points.y.shape[1], model_columns(points, section.standardize), networks)

    def of_one(self) -> "Blueprint":
        """Return the blueprint of the network alone, one of several, in its own units."""
        return self._replace(columns=None, networks=1, quantiles=0)

    def with_numbers(self, parts: dict[str, Any]) -> "Blueprint":
        """Return it with as many networks, and as many quantiles of their errors, as in an outline of a model.

        Raises ValueError if they are too many.
        """
        shapes = {name: part for name, part in parts.items() if isinstance(part, torch.Size)}
        quantiles = next((shape[0] for name, shape in shapes.items() if name.endswith("half_widths")), 0)
        networks = next((shape[0] for name, shape in shapes.items() if "networks.net." in name), 1)
        if networks > MOST_NETWORKS or quantiles > MOST_QUANTILES:
            raise ValueError
        return self._replace(networks=networks, quantiles=quantiles)

    def build(self, seed: int = 0) -> nn.Module:
        """Return the network with its first weights: an Ensemble of several, in a Tabular if it has columns."""
        nets = [network.build(*self[:3], own_seed) for own_seed in seeds_of(seed, self.networks)]
        net = nets[0]
        if self.networks > 1:
            net = Ensemble(Stack(nets, self.n_feature), self.n_output, self.quantiles)
        return Tabular(net, self.columns, self.section.not_in_tensors()) if self.columns else net

    def in_style(self, style: str) -> "Blueprint":
        """Return the blueprint of the same network in another style."""
        return self._replace(section=self.section.model_copy(update={"style": style}))

    def in_all_styles(self) -> dict[str, nn.Module]:
        """Return the network in each style, by name, its own first."""
        styles = sorted(network.STYLES, key=lambda style: style != self.section.style)
        return {style: self.in_style(style).build() for style in styles}


def save_net(path: str, net: nn.Module) -> None:
    """Write the whole module: its weights and the name of its class."""
    with files.writing(path) as file:
        torch.save(net, file)


def save_params(path: str, net: nn.Module) -> None:
    """Write the state dict: the weights and their names, nothing else."""
    with files.writing(path) as file:
        torch.save(net.state_dict(), file)


def restore_net(path: str, blueprint: Blueprint) -> nn.Module:
    """Return the whole module that `save_net` wrote: a network like this, in any style.

    Raises UserError, before anything in the file has run, if it is missing, damaged, or holds anything else.
    """
    return _load(path, [*_as_many(path, blueprint).in_all_styles().values()])


def restore_params(path: str, blueprint: Blueprint) -> nn.Module:
    """Return a network like this, in its style, with the parameters that `save_params` wrote from one of any style.

    Raises UserError as `restore_net` does.
    """
    nets = [*_as_many(path, blueprint).in_all_styles().values()]
    nets[0].load_state_dict(_load(path, [net.state_dict() for net in nets]))
    return nets[0]


def load(path: str) -> Tabular:
    """Return the network in a net.pkl or net_params.pkl of any sizes and columns; columns without names are x and y.

    It is in evaluation mode, ready to predict.

    Raises UserError as `restore_net` does, and if the file does not store the params that a network of your own needs.
    """
    with files.reading(path, WHAT):
        with Path(path).open("rb") as file:
            records = records_of(file)
        blueprint = _blueprint(path, outline(records))
        with torch.device("meta"):  # takes no memory
            if sum(values.nbytes for values in blueprint.build().parameters()) > sum(map(len, records.values())):
                raise ValueError
        nets = [*blueprint.in_all_styles().values()]
        either: list[Any] = [*nets, *(net.state_dict() for net in nets)]
        loaded = restored(
            path, records, either, "does not hold a network like that of stages/network.py", RETRAIN, FITS
        )
    if not isinstance(loaded, nn.Module):
        nets[0].load_state_dict(loaded)
        loaded = nets[0]
    if not isinstance(loaded, Tabular):
        loaded = Tabular(loaded, unnamed(blueprint.n_feature, blueprint.n_output))
    return loaded.eval()


def _blueprint(path: str, parts: dict[str, Any]) -> Blueprint:
    """Return what the network is built from whose outline this is.

    Its first matrix must be the weights of a layer with n_hidden neurons, and its last one those of the layer that
    predicts, as in stages/network.py. Raises UserError where it needs params that it does not store, and ValueError, or
    what pydantic raises, where there is no such network.
    """
    stored = json.loads(parts.get("stored.text", "{}"))
    params = stored.pop("network", {})
    columns = Columns(**stored) if stored else None
    several = any("networks.net." in name for name in parts)
    shapes = [
        shape[several:] for name, shape in parts.items() if isinstance(shape, torch.Size) and "net." * several in name
    ]
    matrices = [shape for shape in shapes if len(shape) == 2]
    (n_hidden, n_feature), (n_output, _) = matrices[0], matrices[-1]
    inferred = {"style": next(iter(network.STYLES)), "hidden": n_hidden, "standardize": False}
    if unknown := sorted(Network.model_fields.keys() - inferred.keys() - params.keys()):
        raise UserError(
            f"{path}: does not store {', '.join(f'network.{name}' for name in unknown)}: use restore_net or "
            "restore_params with these params, or train with `network.standardize: true`, which stores them, "
            "by `dvc repro`"
        )
    inferred = {name: value for name, value in inferred.items() if name in Network.model_fields}
    one = Blueprint(Network.model_validate_json(json.dumps(inferred | params)), n_feature, n_output, columns)
    return one.with_numbers(parts)


def _as_many(path: str, blueprint: Blueprint) -> Blueprint:
    """Return the blueprint with as many networks, and as many quantiles of their errors, as there are in the file."""
    with files.reading(path, WHAT), Path(path).open("rb") as file:
        return blueprint.with_numbers(outline(records_of(file)))


def _load(path: str, expected: Sequence[Loaded]) -> Loaded:
    """Return what torch.save wrote to path, if it is like one of these objects except for the values of its tensors."""
    fault = "does not hold the network of params.yaml and stages/network.py"
    with files.reading(path, WHAT), Path(path).open("rb") as file:
        size = Path(path).stat().st_size
        usual = max(sum(map(len, saved(value).values())) for value in expected)
        if size > READ_RATIO * usual:
            raise UserError(f"{path}: {fault}: it has {size} bytes instead of about {usual}: {RETRAIN}")
        return restored(path, records_of(file), expected, fault, RETRAIN, FITS)
