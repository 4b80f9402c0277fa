"""What a process asks of the kernel (Linux, prctl(2))."""

import ctypes
import signal

_PDEATHSIG, _NAME = 1, 15


def die_with_parent() -> None:
    """Let the kernel kill this process as soon as the thread that has started it is gone."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)


def call_process(name: str) -> None:
    """Give this process a name, of which tools show 15 bytes."""
    ctypes.CDLL(None).prctl(_NAME, name.encode())
