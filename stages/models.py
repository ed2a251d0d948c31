"""Save a trained network both ways, and restore it from a file that may come from a stranger.

Only the values of tensors are taken from a file, and only if it holds a network like the expected one: see
runtime/outline.py.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stages import network
from stages.columns import Columns, unnamed
from stages.dataset import Dataset
from stages.ensemble import MOST_NETWORKS, MOST_QUANTILES, Ensemble, Stack, seeds_of
from stages.network import Network
from stages.runtime import files
from stages.runtime.errors import UserError
from stages.runtime.outline import WITHIN, fill, match, parts
from stages.tabular import Tabular, model_columns

WHAT = "a model of this project"
OURS = "does not hold the network of params.yaml and stages/network.py"
STACKED = "networks.net."  # in the names of tensors of an Ensemble's networks
ANY = "does not hold a network like that of stages/network.py"


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

    def sized(self, named: dict[str, Any]) -> "Blueprint":
        """Return it with as many networks, and as many quantiles of their errors, as there are in a file's parts.

        Raises ValueError if they are too many.
        """
        tensors = {WITHIN.sub("", name): part for name, part in named.items() if isinstance(part, Tensor)}
        networks = next((len(values) for name, values in tensors.items() if STACKED in name), 1)
        quantiles = next((len(values) for name, values in tensors.items() if name.endswith("half_widths")), 0)
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
    """Return a network with the values in the file that `save_net` wrote: a network like this, in any style.

    Nothing in the file runs. Raises UserError if it is missing, damaged, or holds anything else.
    """
    nets = _sized(path, blueprint).in_all_styles().values()
    return _restored(path, [(net, net) for net in nets], OURS)


def restore_params(path: str, blueprint: Blueprint) -> nn.Module:
    """Return a network like this, in its style, with the parameters that `save_params` wrote from one of any style.

    Raises UserError as `restore_net` does.
    """
    net = _sized(path, blueprint).build()
    return _restored(path, [(net.state_dict(), net)], OURS)


def _sized(path: str, blueprint: Blueprint) -> Blueprint:
    """Return the blueprint with as many networks as a file has, which params.yaml may not say any more."""
    with files.reading(path, WHAT), Path(path).open("rb") as file:
        return blueprint.sized(parts(file))


def load(path: str) -> Tabular:
    """Return the network in a net.pkl or net_params.pkl of any sizes and columns; columns without names are x and y.

    It is in evaluation mode, ready to predict.

    Raises UserError as `restore_net` does, and if the file does not store the params that a network of your own needs.
    """
    with files.reading(path, WHAT), Path(path).open("rb") as file:
        blueprint = _blueprint(path, parts(file))
        with torch.device("meta"):  # takes no memory; a stack there would load torch's compiler, which takes a second
            size = sum(values.nbytes for values in blueprint.of_one().build().parameters())
        if blueprint.networks * size > Path(path).stat().st_size:
            raise ValueError
    own, *others = blueprint.in_all_styles().values()
    net = _restored(path, [(own.state_dict(), own), (own, own), *((net, net) for net in others)], ANY)
    return (net if isinstance(net, Tabular) else Tabular(net, unnamed(*blueprint[1:3]))).eval()


def _blueprint(path: str, named: dict[str, Any]) -> Blueprint:
    """Return what the network is built from with these parts.

    Its first matrix must be the weights of a layer with n_hidden neurons, and its last one those of the layer that
    predicts, as in stages/network.py. Raises UserError where it needs params that it does not store, and ValueError, or
    what pydantic raises, where there is no such network.
    """
    stored = json.loads(named.get("stored.text", "{}"))
    params = stored.pop("network", {})
    columns = Columns(**stored) if stored else None
    tensors = {WITHIN.sub("", name): part for name, part in named.items() if isinstance(part, Tensor)}
    stacked = [values[0] for name, values in tensors.items() if STACKED in name]
    matrices = [values.shape for values in stacked or tensors.values() if values.ndim == 2]
    (n_hidden, n_feature), (n_output, _) = matrices[0], matrices[-1]
    inferred = {"style": next(iter(network.STYLES)), "hidden": n_hidden, "standardize": False}
    if unknown := sorted(Network.model_fields.keys() - inferred.keys() - params.keys()):
        raise UserError(
            f"{path}: does not store {', '.join(f'network.{name}' for name in unknown)}: use restore_net or "
            "restore_params with these params, or train with `network.standardize: true`, which stores them, "
            "by `dvc repro`"
        )
    inferred = {name: value for name, value in inferred.items() if name in Network.model_fields}
    section = Network.model_validate_json(json.dumps(inferred | params))
    return Blueprint(section, n_feature, n_output, columns).sized(named)


def _restored(path: str, forms: Sequence[tuple[object, nn.Module]], fault: str) -> nn.Module:
    """Return the network beside the form that a file has, with the values in the file.

    Raises UserError, `path: fault: difference: what to do`, if it has another form.
    """
    with files.reading(path, WHAT), Path(path).open("rb") as file:
        index, difference = match(parts(file), [form for form, _ in forms])
        if difference:
            raise UserError(f"{path}: {fault}: {difference}: undo the change, or run `dvc repro --force train`")
        net = forms[index][1]
        fill(net, parts(file, "cpu"))
    return net
