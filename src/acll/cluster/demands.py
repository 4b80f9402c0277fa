"""What a job asks a scheduler for: memory and time.

Estimates from the prepared files, the network and the schedule, on the safe side. A job that died
of want is tried again with twice as much, and goes on from its checkpoint, so that a wrong estimate
costs a wait and no result.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acll.config.configuration import Configuration
from acll.networks.spec import OWN_NETWORKS
from acll.node import Node
from acll.parameters.grow import GrowParams
from acll.parameters.search import SearchParams
from acll.plan import Job

# MB. Measured: 730 when PyTorch and its libraries are imported, which counts twice where a step is
# forked, and 150 for each Snakemake. A network of torchvision has up to
# some 100 million weights, of which a training keeps some ten copies of four bytes.
_LIBRARIES, _LARGE_NETWORK = 2500, 4000
# prepared images are mapped into memory, of which the kernel takes back what is short
_MAPPED = 8000
# bytes that a pixel of a batch takes in forward and backward pass; measured: 700 (ResNet-18) to
# 3,200 (ViT-B/16)
_ACTIVATIONS = 3200
# pixels a second that a training takes; measured on one core: 30,000 (ViT-B/16) to 500,000
# (MobileNetV2), and on a GPU 90,000,000 (ResNet-50)
_ON_CORE, _ON_GPU = 30_000, 5_000_000
# minutes of a step, and of all that are one job: queues refuse what is longer than they allow
_LEAST, _MOST = 10, 24 * 60
_PREPARING = 4000, 240  # MB and minutes of a job that decodes raw data
_WIDTHS = 3  # trainings of a job that makes a network wider


def memory_mb(configuration: Configuration, job: Job, results: Path, lacked: int) -> int:
    """Return how many MB of memory a job asks for.

    lacked: how often it had too little. results: where the prepared files are; of those that are
    not there yet nothing is known.
    """
    if job.rule in ("prepare", "vary"):
        return _PREPARING[0] << lacked
    needed = _LIBRARIES + min(_prepared_bytes(job, results) / 1e6, _MAPPED)
    if job.name:
        node = Node.of(job.name)
        tasks = node.tasks[len(configuration.tasks_before(node.network)) :]
        largest = max(_pixels_of_batch(configuration, task) for task in tasks)
        needed += largest * _ACTIVATIONS / 1e6
        needed += 0 if _is_own(configuration.specs[node.network]) else _LARGE_NETWORK
    return round(needed) << lacked


def minutes(
    configuration: Configuration,
    job: Job,
    together: Sequence[Job],
    results: Path,
    lacked: int,
    gpu: bool,
) -> int:
    """Return how many minutes a job asks for, as `memory_mb`.

    together: the jobs that a scheduler gets as one with this job, itself among them; they share
    what one may ask for. gpu: whether it computes on one.
    """
    asked = {one.title: _minutes(configuration, one, results, gpu) << lacked for one in together}
    return max(1, round(asked[job.title] * min(1.0, _MOST / sum(asked.values()))))


def _minutes(configuration: Configuration, job: Job, results: Path, gpu: bool) -> int:
    if job.rule in ("prepare", "vary"):
        return _PREPARING[1]
    speed = _ON_GPU if gpu else _ON_CORE * configuration.threads
    pixels = _prepared_bytes(job, results) / 3
    return round(_LEAST + pixels * epochs_of(job.params) / speed / 60)


def _prepared_bytes(job: Job, results: Path) -> int:
    """Return the size of the prepared images that a job reads, as far as they are there."""
    keys = ("train", "test")
    paths = [results / path for key in keys for path in job.inputs.get(key, ())]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _pixels_of_batch(configuration: Configuration, task: str) -> int:
    size = configuration.tasks[task].image_size
    return configuration.training_of(task).batch_size * math.prod(size)


def _is_own(network: Any) -> bool:
    """Return whether a network is one of ours, which are small."""
    names = {getattr(network, key, None) for key in ("backbone", "encoder")}
    return names <= {*OWN_NETWORKS, None}


def epochs_of(params: Any) -> float:
    """Return over how many epochs a job goes."""
    if isinstance(params, GrowParams):
        return _WIDTHS * (params.schedule.epochs + epochs_of(params.search))
    if isinstance(params, SearchParams):
        return params.dense_epochs * (1 + params.search.budget)
    schedule = getattr(params, "schedule", None)
    return 1.0 if schedule is None else float(schedule.epochs)
