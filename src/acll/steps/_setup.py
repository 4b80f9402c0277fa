"""What the steps that train have in common: the network and data of a task, put together from files
and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acll import plugins
from acll.data.batches import splits_of
from acll.data.prepared import TaskInfo
from acll.data.root import data_root
from acll.networks.build import TaskNetwork, build
from acll.networks.partition import partition
from acll.networks.spec import PLUGIN_FILE, Network, NetworkError, PluginNetwork, body_kind
from acll.networks.widening import inputs_in_wider
from acll.packing import packed_file
from acll.packing.ownership import Packed, State, TaskRecord, empty, widened
from acll.parameters.node import NodeParams
from acll.settings import MetricName
from acll.steps._gpu import prepare_device
from acll.training.learner import TaskLearner
from acll.training.settings import Batches


def learner_of(
    node: NodeParams, path: Path, batches: Batches, pretrained: bool = False
) -> TaskLearner:
    """Return the learner of a task, its network newly drawn, or with the weights that the
    configuration names.

    path: the prepared training data of the task. Raises NetworkError or UnpackableError where the
    network cannot be built or packed, or takes other images.
    """
    device = prepare_device(node.threads)
    train, validation, header = splits_of(path)
    spec = node.network
    refuse_channels(header, spec.channels)
    if spec.weights not in ("none", "imagenet"):
        spec = spec.model_copy(update={"weights": str(data_root() / spec.weights)})
    network = build(spec, header.kind, len(header.classes), node.seed_for("network"), pretrained)
    partition(network)  # refuse what cannot be packed before any work is done
    return TaskLearner(network, train, validation, header, batches, device)


def refuse_channels(header: TaskInfo, channels: int) -> None:
    """Raise NetworkError unless the task's images are grey or have the number of channels that the
    network takes."""
    own = len(header.mean)
    if own not in (1, channels):
        raise NetworkError(
            f"the images of {header.name} have {own} channels, the network takes {channels}: "
            f"set channels: {own} for this network"
        )


def packed_before(node: NodeParams, parent: Path | None) -> Packed:
    """Return the network that the earlier tasks left; for a first task one in which everything is
    free."""
    if parent is not None:
        return packed_file.read_packed(parent)
    whole = _whole(node.network)
    state = whole.state_dict()
    shared = {name: state[name] for name in partition(whole).shared}
    settings = node.network.model_dump(mode="json")
    if isinstance(node.network, PluginNetwork):
        place = plugins.required("network", node.network.plugin).place
        settings[PLUGIN_FILE] = Path(place).name
    return empty(settings, shared, node.method, node.seed)


def packed_at(node: NodeParams, parent: Path | None, width: float) -> Packed:
    """Return the network that the earlier tasks left, made wider where its width is another one.

    Raises PackingError where it would become narrower.
    """
    packed = packed_before(node, parent)
    if packed.width == width:
        return packed
    narrow, wide = (_whole(node.at_width(one).network) for one in (packed.width, width))
    shared = partition(wide).shared
    shapes = {name: value.shape for name, value in wide.state_dict().items() if name in shared}
    return widened(packed, shapes, inputs_in_wider(narrow, wide, node.network.channels))


def free_of(
    node: NodeParams, parent: Path | None, state: Mapping[str, Tensor], header: Mapping[str, Any]
) -> State:
    """Return boolean masks of what a task could train.

    parent: the packed file of the tasks before it, which left these weights free; without one, all
    weights are free, and so is what a wider network has more. state, header: of its dense network.
    """
    shared = header["shared"]
    if parent is None:
        return {name: torch.ones(state[name].shape, dtype=torch.bool) for name in shared}
    (learned,) = header["tasks"]
    owner = packed_at(node, parent, learned["width"]).owner
    return {name: owner[name] == 0 for name in shared}


def _whole(network: Network) -> TaskNetwork:
    """Return a network with every part that its tasks may have, newly drawn."""
    return build(network, body_kind(network), 2, 0, pretrained=False)


CHOICE_KEYS = ("ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped", "cost")


def pruned_header(learned: Mapping[str, Any], decided: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a pruned network says of its task. decided: the choice of its ratio."""
    figures = {key: decided.get(key) for key in CHOICE_KEYS}
    known = {key: learned[key] for key in ("task", "curve", "width")}
    return known | {"choice": figures}


def task_record(
    header: TaskInfo,
    metric: MetricName,
    score: float,
    curve: Sequence[float],
    choice: dict[str, Any],
    width: float = 1.0,
) -> TaskRecord:
    """Return what a packed network will know of a task.

    score: on the validation split, by its metric; curve: the same after each epoch of its training,
    before it was pruned. width: factor of
    the channels of its network.
    """
    known = asdict(header) | {
        "metric": metric,
        "validation_score": score,
        "digest": "",
        "choice": choice,
        "width": width,
    }
    return TaskRecord(**known, curve=tuple(curve))
