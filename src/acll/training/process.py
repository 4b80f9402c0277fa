"""The process of a training or an evaluation: repeatable numbers, threads, device, memory."""

import contextlib
import ctypes
import os

import torch

# options of glibc's `mallopt`: memory that is given back to the system, and what is asked for by
# itself and given back with its end; older versions take the smaller value alone, and keep it
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, 2**25), (_MMAP_THRESHOLD, 2**30))


def prepare_process(threads: int) -> torch.device:
    """Make torch repeatable, with this number of threads; the device is a GPU where there is one.

    On a CPU results are equal bit for bit. On a GPU a few operations (adaptive pooling to several
    values, say) have no repeatable form, and results may differ in the last bits from run to run.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _keep_memory()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # nothing reads memory before it is written; to fill it first takes a part of every step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _keep_memory() -> None:
    """Let memory that is freed stay with this process, where its C library is glibc.

    Each step frees tensors of megabytes and asks for as many again. Otherwise the system takes them
    back and clears each page anew: up to a fifth of a step.
    """
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # another C library
        for option, value in _KEPT:
            libc.mallopt(option, value)
