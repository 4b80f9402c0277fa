"""Ctrl-C during a run: one line, exit code 130, no process left behind.

Whatever is killed goes on from its checkpoint with the next run, so nothing has to be cleared up
but the queue of a scheduler. A run that is told to end otherwise (SIGTERM, SIGHUP) does likewise.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

from acll.errors import UserError

INTERRUPTED = 128 + signal.SIGINT  # exit code
_HOW = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "ended by SIGTERM",
    signal.SIGHUP: "ended by SIGHUP",
}
_PATIENCE = 1.0  # seconds in which killed processes must have ended
_SHOW_CURSOR = "\x1b[?25h"  # which the live display hides


def end_on_interrupt(words: str, clear: Callable[[], object]) -> None:
    """From now on end this process, and all that it has started, where it is interrupted.

    SIGINT is blocked in this thread and in the processes that it starts, so that none of them
    reacts by itself. Whatever thread gets the signal, it wakes one that waits for it: the main
    thread may be waiting for a process. words: what to say. clear: called when all that has ended;
    it may raise UserError, which is told.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for one in _HOW:
        if one == signal.SIGINT or signal.getsignal(one) != signal.SIG_IGN:  # as under nohup
            # this thread does nothing more, whatever it was waiting for
            signal.signal(one, lambda *_: threading.Event().wait())
    threading.Thread(target=_wait, args=(reading, words, clear), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _wait(reading: int, words: str, clear: Callable[[], object]) -> None:
    import psutil  # no part of a plain installation

    while (number := os.read(reading, 1)[0]) not in _HOW:  # other signals come here, too
        pass
    how = signal.Signals(number)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a second one ends no `scancel`
    try:
        started = psutil.Process().children(recursive=True)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=_PATIENCE)
        if sys.stderr.isatty():
            sys.stderr.write(f"{_SHOW_CURSOR}\n")
        try:
            clear()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        print(f"{_HOW[how]}: {words}", file=sys.stderr, flush=True)
    finally:
        os._exit(128 + how)
