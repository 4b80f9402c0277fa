"""Which GPU a job uses: one that no other job of this machine has.

Each GPU has as many slots as jobs may share it. A slot is the name of a socket, which the kernel
gives to one process at a time and frees with its end, however it ends. So jobs of several runs of a
user share the GPUs of a machine, too. Where a scheduler gives jobs their GPUs, nobody takes slots.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

# the variable by which a run on one machine says how many jobs may share a GPU
JOBS_PER_GPU = "ACLL_JOBS_PER_GPU"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEVICES = Path("/dev")
_INTERVAL = 0.2  # seconds after which a job that waits looks again

_taken: list[socket.socket] = []  # the slot of this process, for as long as it lives


def visible_gpus(
    environment: Mapping[str, str] = os.environ, devices: Path = _DEVICES
) -> list[str]:
    """Return the GPUs that CUDA may use, as `CUDA_VISIBLE_DEVICES` names them.

    CUDA is not asked, since a process that has done so cannot be forked.
    """
    named = environment.get(_VISIBLE)
    if named is None:
        return [str(number) for number in range(len(list(devices.glob("nvidia[0-9]*"))))]
    gpus: list[str] = []
    for one in named.split(","):
        if not one.strip() or one.strip() == "-1":
            break  # as CUDA does: what stands behind it is hidden
        gpus.append(one.strip())
    return gpus


def take_gpu() -> None:
    """Let this process see one GPU that has a slot free; wait for one where there is none.

    Do nothing where there is no GPU, or where the run has not said that jobs take slots. To be
    called before CUDA is used.
    """
    gpus, shared = visible_gpus(), int(os.environ.get(JOBS_PER_GPU, "0"))
    if not gpus or not shared or _taken:
        return
    waits = False
    while (gpu := _free(gpus, shared)) is None:
        if not waits:
            print(f"waits until one of {len(gpus)} GPUs is free", flush=True)
        waits = True
        time.sleep(_INTERVAL)
    os.environ[_VISIBLE] = gpu
    if len(gpus) > 1:
        print(f"uses GPU {gpu}", flush=True)


def _free(gpus: list[str], shared: int) -> str | None:
    """Take a slot and return its GPU, one with few jobs first; None where all are taken."""
    for slot in range(shared):
        for gpu in gpus:
            mine = socket.socket(socket.AF_UNIX)
            try:
                mine.bind(f"\0acll-{os.getuid()}-gpu-{gpu}-{slot}")
            except OSError:
                mine.close()
            else:
                _taken.append(mine)
                return gpu
    return None
