"""Whether losses, metrics and augmentations of plug-ins do what they promise, tried before any job.

To try them takes the import of torch, so those that were sound are remembered.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from acll import plugins
from acll.code import code_of
from acll.networks.buildable import judged_once
from acll.settings import MIXING, Kind
from acll.training.settings import Batches

SOUND_PLUGINS = Path(".cache/plugins.json")  # below the repository
# how a loss is used beside the kinds of tasks
_MIXED = "classification with mixup or cutmix, where labels are shares of classes [N, C]"


def faults_of_plugins(used: Iterable[tuple[Kind, Batches]], cache: Path) -> list[str]:
    """Return a line for each plug-in of losses, metrics and augmentations that cannot be used.

    used: how the tasks of each kind are trained. cache: a file of what is known to be sound.
    """
    tried: dict[str, tuple[plugins.PluginKind, plugins.Plugin, str]] = {}
    for task_kind, batches in used:
        named: list[tuple[plugins.PluginKind, str | None]] = [
            ("loss", batches.loss),
            ("metric", batches.metric),
            *(("augmentation", name) for name in batches.augmentation_names),
        ]
        for kind, name in named:
            found = plugins.find(kind, name) if name is not None else None
            if found is not None:
                mixes = kind == "loss" and any(one in MIXING for one in batches.augmentation)
                use = _MIXED if mixes else task_kind
                tried[f"the {kind} {name!r}, for {use}"] = kind, found, use
    keys = {name: _key(*of_name) for name, of_name in tried.items()}
    faults, _ = judged_once(keys, lambda name: _try(*tried[name]), cache)
    lines = []
    for name, fault in faults.items():
        _, one, _ = tried[name]
        words = fault.removeprefix(f"the {one.kind} {one.name!r} ")
        lines.append(f"{Path(one.place).name}: {name}: {words}")
    return lines


def _key(kind: plugins.PluginKind, one: plugins.Plugin, use: str) -> str:
    code = code_of("acll.training.probe", plugged=plugins.code_origins({kind: [one.name]}))
    text = json.dumps([kind, one.name, use, code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _try(kind: plugins.PluginKind, one: plugins.Plugin, use: str) -> str:
    """Try a plug-in on random values; return nothing. Raises PluginError."""
    tries: dict[plugins.PluginKind, Callable[[plugins.Plugin, str], None]] = {
        "loss": _try_loss,
        "metric": _try_metric,
        "augmentation": _try_augmentation,
    }
    try:
        with warnings.catch_warnings():  # what they warn of is told where it does harm
            warnings.simplefilter("ignore")
            tries[kind](one, use)
    except plugins.PluginError:
        raise
    except (Exception, SystemExit) as error:  # whatever the code of others raises
        words = plugins.failure_of(kind, one.name, error)
        raise plugins.PluginError(f"fails: {words}") from error
    return ""


def _batch(use: str) -> tuple[Any, Any, Any]:
    """Return random images [4, 3, 16, 16], labels of three classes, and logits for them."""
    import torch

    from acll.data.prepared import IGNORE

    generator = torch.Generator().manual_seed(0)
    size = (16, 16) if use == "segmentation" else ()
    labels = torch.randint(3, (4, *size), generator=generator)
    if use == "segmentation":
        labels[:, 0] = IGNORE
    if use == _MIXED:
        labels = torch.randn((4, 3), generator=generator).softmax(1)
    logits = torch.randn((4, 3, *size), generator=generator)
    return torch.randn((4, 3, 16, 16), generator=generator), labels, logits


def _try_loss(one: plugins.Plugin, use: str) -> None:
    import torch

    _, labels, logits = _batch(use)
    for weights in (None, torch.ones(3)):
        given = logits.clone().requires_grad_()
        loss = one.value(given, labels, weights)
        if not isinstance(loss, torch.Tensor) or loss.shape != () or not torch.isfinite(loss):
            raise plugins.PluginError(
                f"gives {plugins.described(loss)}: must be one finite number, a tensor of the "
                "shape []"
            )
        if not loss.requires_grad:
            raise plugins.PluginError("has no gradient with respect to the logits")


def _try_metric(one: plugins.Plugin, use: str) -> None:
    import numpy as np

    some = np.array([[3, 1, 0], [0, 2, 2], [1, 0, 0]])
    for confusion in (some, np.diag([4, 0, 1]), np.zeros((3, 3), int)):
        given, before = f"given the confusion matrix {confusion.tolist()}", confusion.copy()
        try:
            plugins.metric_value(one.name, confusion)
        except plugins.PluginError as error:
            raise plugins.PluginError(f"{error}; it was {given}") from None
        except (Exception, SystemExit) as error:  # whatever the code of others raises
            words = plugins.failure_of("metric", one.name, error)
            raise plugins.PluginError(f"fails: {given}: {words}") from error
        if not np.array_equal(confusion, before):
            raise plugins.PluginError("changes the confusion matrix that it gets: work on a copy")


def _try_augmentation(one: plugins.Plugin, use: str) -> None:
    import torch

    from acll.data.prepared import IGNORE

    images, labels, _ = _batch(use)
    twice = [
        plugins.augmented_by(
            one.name, images.clone(), labels.clone(), torch.Generator().manual_seed(0)
        )
        for _ in range(2)
    ]
    changed, truth = twice[0]
    if not torch.isfinite(changed).all():
        raise plugins.PluginError("gives images with values that are not finite")
    classes = [0, 1, 2, IGNORE] if use == "segmentation" else [0, 1, 2]
    if not torch.isin(truth, torch.tensor(classes)).all():
        raise plugins.PluginError("gives labels of classes that there are not")
    if not all(torch.equal(first, second) for first, second in zip(*twice)):
        raise plugins.PluginError(
            "is not the same each time: draw from the generator that it is given"
        )
