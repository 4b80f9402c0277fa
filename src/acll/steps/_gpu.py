"""Which GPU a job uses: one that no other job of this machine has.

A run finds out which GPUs it may use and tells its jobs. Each GPU has as many slots as jobs may
share it. A slot is the name of a socket, which the kernel gives to one process at a time and frees
with its end, however it ends. So jobs of several runs of a user share the GPUs of a machine, too.
Where a run tells its jobs nothing, as where a scheduler gives them their GPUs, nobody takes slots.
"""

import errno
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# the variables by which a run on one machine names its GPUs, and how many jobs may share one
GPUS = "ACLL_GPUS"
JOBS_PER_GPU = "ACLL_JOBS_PER_GPU"
ASKS_FOR_GPU = "ACLL_ASKS_FOR_GPU"  # the variable that says whether jobs ask for a GPU: 1 or 0
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEVICES = Path("/dev")
_LISTED = re.compile(r"^(?P<part> +MIG )?.*\(UUID: (?P<uuid>\S+)\)$", re.MULTILINE)
_INTERVAL = 0.2  # seconds after which a job that waits looks again

_taken: list[socket.socket] = []  # the slot of this process, for as long as it lives


def gpus_here() -> tuple[str, ...]:
    """Return the identities of the GPUs that a run on this machine may use.

    CUDA is not asked, since a process that has done so cannot be forked.
    """
    if which("nvidia-smi") is None:  # a container may have the devices alone
        count = len(list(_DEVICES.glob("nvidia[0-9]*")))
        return visible_gpus([str(number) for number in range(count)], os.environ)
    run = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return visible_gpus(listed_gpus(run.stdout) if run.returncode == 0 else [], os.environ)


def hide_gpus() -> None:
    """Let this process, and those that it starts, see no GPU."""
    os.environ[_VISIBLE] = ""


def listed_gpus(text: str) -> list[str]:
    """Return the identities in what `nvidia-smi -L` says; parts (MIG) in place of what has them."""
    found: list[str] = []
    whole: str | None = None  # the last GPU, while it has no parts
    for line in _LISTED.finditer(text):
        if line["part"] and found and found[-1] == whole:
            found.pop()
        found.append(line["uuid"])
        whole = whole if line["part"] else line["uuid"]
    return found


def visible_gpus(gpus: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return those of the GPUs of a machine that `CUDA_VISIBLE_DEVICES` leaves.

    It has numbers, in the order of `gpus`, or identities or their beginnings. As with CUDA, what
    stands behind one that is not there is hidden.
    """
    named = environment.get(_VISIBLE)
    if named is None:
        return tuple(gpus)
    found: list[str] = []
    for one in (part.strip() for part in named.split(",")):
        numbered = list(gpus[int(one) : int(one) + 1]) if one.isdecimal() else []
        meant = numbered or [gpu for gpu in gpus if one and gpu.startswith(one)]
        if len(meant) != 1 or meant[0] in found:
            break
        found += meant
    return tuple(found)


def prepare_device(threads: int) -> "torch.device":
    """Take a GPU, where the run has named some, and return the device of this process.

    threads: as of `prepare_process`.
    """
    from acll.training.process import prepare_process

    take_gpu()
    device = prepare_process(threads)
    given = os.environ.get(_VISIBLE, "")
    if device.type == "cpu" and (_taken or os.environ.get(ASKS_FOR_GPU) == "1"):
        which = f"GPU {given}" if given else "the GPU that it was to have"
        print(f"warning: PyTorch cannot use {which}; the CPU computes", flush=True)
    elif device.type != "cpu" and given and not _taken:  # the scheduler has chosen it
        print(f"uses GPU {given}", flush=True)
    return device


def take_gpu() -> None:
    """Let this process see one GPU that has a slot free; wait for one where there is none.

    Do nothing where the run has named no GPUs. To be called before CUDA is used.
    """
    gpus = os.environ.get(GPUS, "").split(",")
    if gpus == [""] or _taken:
        return
    shared = int(os.environ[JOBS_PER_GPU])
    gpu = _free(gpus, shared)
    if gpu is None:
        print(f"waits until one of {len(gpus)} GPUs is free", flush=True)
    while gpu is None:
        time.sleep(_INTERVAL)
        gpu = _free(gpus, shared)
    os.environ[_VISIBLE] = gpu
    print(f"uses GPU {gpu}", flush=True)


def _free(gpus: Sequence[str], shared: int) -> str | None:
    """Take a slot and return its GPU, one with few jobs first; None where all are taken."""
    for slot in range(shared):
        for gpu in gpus:
            mine = socket.socket(socket.AF_UNIX)
            try:
                mine.bind(f"\0acll-{os.getuid()}-{gpu}-{slot}")
            except OSError as error:
                mine.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                _taken.append(mine)
                return gpu
    return None
