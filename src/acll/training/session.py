"""What the steps that train have in common: the network and data of a task, put together from files and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from acll.data import prepared
from acll.data.batches import Split, split_of
from acll.data.prepared import Header
from acll.data.root import data_root
from acll.networks.build import NetworkError, body_kind, build
from acll.networks.partition import partition
from acll.packing import file
from acll.packing.ownership import Packed, TaskRecord, empty
from acll.packing.stage import save_state
from acll.seeds import derived
from acll.settings import Network, Settings, Training
from acll.training.learner import TaskLearner
from acll.training.loop import Plan, Unfinished, fit, prepare_process
from acll.training.metrics import METRIC


class Node(Settings):
    """A node of the tree of prefixes, and all that its trainings depend on beside their inputs."""

    network: Network
    method: str
    seed: int
    prefix: list[str]
    training: Training
    threads: int

    def seed_for(self, what: str) -> int:
        """The seed of one of the node's trainings."""
        return derived(self.seed, what, *self.prefix)


def splits_of(path: Path) -> tuple[Split, Split, Header]:
    """Training split, validation split and header of a prepared task."""
    tensors, header = prepared.read(path)
    return split_of(tensors, "train"), split_of(tensors, "val"), header


def learner_of(node: Node, path: Path, pretrained: bool = False) -> TaskLearner:
    """The learner of a node's task, its network newly drawn, or with the weights that the configuration names.

    Raises NetworkError or UnpackableError where the network cannot be built or packed, or takes other images.
    """
    device = prepare_process(node.threads)
    train, validation, header = splits_of(path)
    spec = node.network
    _check_channels(header, spec.channels)
    if spec.weights not in ("none", "imagenet"):
        spec = spec.model_copy(update={"weights": str(data_root() / spec.weights)})
    network = build(spec, header.kind, len(header.classes), node.seed_for("network"), pretrained)
    partition(network)  # refuse what cannot be packed before any work is done
    return TaskLearner(network, train, validation, header, node.training, device)


def _check_channels(header: Header, channels: int) -> None:
    """Raise NetworkError unless the task's images are grey or have the number of channels that the network takes."""
    own = len(header.mean)
    if own not in (1, channels):
        raise NetworkError(
            f"the images of {header.name} have {own} channels, the network takes {channels}: "
            f"set channels: {own} for this network"
        )


def parent_of(node: Node, path: Path | None) -> Packed:
    """The network that the earlier tasks left; for a first task one in which everything is free."""
    if path is not None:
        return file.read(path)
    whole = build(node.network, body_kind(node.network), 2, 0, pretrained=False)
    state = whole.state_dict()
    shared = {name: state[name] for name in partition(whole).shared}
    return empty(node.network.model_dump(mode="json"), shared, node.method, node.seed)


def train_dense(
    node: Node, learner: TaskLearner, start: Mapping[str, Tensor], masks: Mapping[str, Tensor], path: Path, key: str
) -> None:
    """Train a node's dense network and write it to `path`: the state of the best epoch on the validation split.

    start, masks: as `acll.training.loop.fit` takes them; key: whatever the training depends on beside its inputs. One
    that was killed goes on from its last epoch.
    """
    name = learner.header.name
    plan = Plan(node.training.epochs, node.training.learning_rate, node.seed_for("train"), label=name)
    unfinished = Unfinished(path.with_suffix(".checkpoint"), key)
    fitted = fit(learner, start, plan, masks, unfinished)
    header = {
        "shared": partition(learner.network).shared,
        "task": asdict(learner.header),
        "score": fitted.score,
        "curve": fitted.curve(),
    }
    save_state(path, fitted.state, header)
    unfinished.path.unlink(missing_ok=True)
    print(f"{name}: kept epoch {fitted.epoch}, validation {fitted.score:.4f}")


def record_of(header: Header, score: float, curve: Sequence[float], choice: dict[str, Any]) -> TaskRecord:
    """What a packed network will know of the task. curve: validation score after each epoch of its training."""
    known = asdict(header) | {"metric": METRIC[header.kind], "validation_score": score, "digest": "", "choice": choice}
    return TaskRecord(**known, curve=tuple(curve))
