"""Start a step: `python -S -m acll.steps._client train @arguments < parameters`.

The run's server forks the step (`acll.steps._server`), which saves the imports. A step that imports
little starts as a process of its own. So does any step where there is no server, where it cannot
fork it, or where it dies. Both come to the same bytes. This module imports next to nothing, since
each job starts with it.
"""

import array
import contextlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any

SERVER = "ACLL_STEP_SERVER"  # the variable of the environment with the name of the server's socket
# What libraries read when they are imported. A step is forked only from a server with the same.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Steps that are started as processes of their own: `prepare` imports little, and limits the memory
# of processes that it forks itself. It does not wait until the server has imported its libraries.
ALONE = ("prepare",)
_RELAYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run the step to its end, and end as it did."""
    step, *given = sys.argv[1:]
    arguments = [line for one in given for line in _expanded(one)]
    # they may be read twice: by a server that dies, and then by a process of its own
    parameters = _in_memory(sys.stdin.buffer.read())
    os.dup2(parameters, 0)
    name = os.environ.get(SERVER)
    code = _by_server(name, step, arguments) if name and step not in ALONE else None
    if code is None:
        _start(step, arguments)
    elif code < 0:  # a signal: whoever waits shall see the same
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _expanded(argument: str) -> list[str]:
    """Return an argument, or the lines of the file that `@file` names."""
    if not argument.startswith("@"):
        return [argument]
    with open(argument[1:], encoding="utf-8", errors="surrogateescape") as file:
        return file.read().removesuffix("\n").split("\n")


def _in_memory(content: bytes) -> int:
    """Return the descriptor of a new file that lies in memory."""
    descriptor = os.memfd_create("acll", 0)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _by_server(name: str, step: str, arguments: list[str]) -> int | None:
    """Return the exit code of a step that the server has forked, negative for a signal.

    None where the server does not fork it, or is gone before the step ends.
    """
    request = {
        "step": step,
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    content = os.fsencode(json.dumps(request))
    with contextlib.suppress(OSError, EOFError), socket.socket(socket.AF_UNIX) as server:
        server.connect(f"\0{name}")
        refuse_other_users(server)
        descriptors = array.array("i", [0, 1, 2])
        length = len(content).to_bytes(8, "big")
        server.sendmsg([length], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        server.sendall(content)
        with server.makefile("rb") as answers:
            number = _answer(answers)
            if number is None:
                return None
            process = os.pidfd_open(number)
            for one in _RELAYED:
                if signal.getsignal(one) != signal.SIG_IGN:
                    signal.signal(one, lambda which, _: server.sendall(bytes([which])))
            try:
                return _answer(answers)
            except (OSError, EOFError):
                select.select([process], [], [])  # it ends with the server
    for one in _RELAYED:
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, signal.SIG_DFL)
    os.lseek(0, 0, os.SEEK_SET)
    return None


def _answer(answers: Any) -> int | None:
    line = answers.readline()
    if not line:
        raise EOFError
    value: int | None = json.loads(line)
    return value


def refuse_other_users(connection: socket.socket) -> None:
    """Raise PermissionError unless the process at the other end belongs to the user of this one."""
    known = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, user, _ = array.array("i", known)
    if user != os.getuid():
        raise PermissionError(f"the socket belongs to user {user}")


def _start(step: str, arguments: list[str]) -> None:
    """Become the step. Arguments are read from a file: they may be more than one may pass."""
    descriptor = _in_memory("\n".join(arguments).encode("utf-8", "surrogateescape"))
    file = f"@/proc/self/fd/{descriptor}"
    os.execv(sys.executable, [sys.executable, "-m", f"acll.steps.{step}", file])  # noqa: S606


if __name__ == "__main__":
    main()
