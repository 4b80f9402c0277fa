"""Dry runs of Snakemake, each forked from a process that has imported it.

    python planner.py

Most of the time that a dry run takes is that of its imports. What is forked imports the package
anew, from the checkout whose jobs it plans. A request is a line of JSON on standard input: folder,
environment and arguments of Snakemake; so is the answer: exit code, and all that was printed.
"""

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any


def dry_run(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """The exit code of `snakemake --dry-run` with these arguments, and all that it prints."""
    request = {"folder": str(folder), "environment": environment, "arguments": arguments}
    process = _process()
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    return answer["code"], answer["text"]


@functools.cache
def _process() -> subprocess.Popen:
    # without our places: each checkout brings a package of its own
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, __file__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)  # it ends with its input
    return process


def _serve() -> None:
    import pandas  # noqa: F401 - imported by Snakemake when it compares parameters
    import snakemake.cli  # noqa: F401

    assert not [name for name in sys.modules if name.split(".")[0] == "acll"]
    answers = os.dup(1)  # nobody else prints there
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile("w+") as said:
            number = os.fork()
            if not number:
                _become(request, said.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
            said.seek(0)
            answer = json.dumps({"code": code, "text": said.read()})
        os.write(answers, answer.encode() + b"\n")


def _become(request: dict[str, Any], said: int) -> None:
    """Be Snakemake, as if it was started there."""
    import snakemake.cli

    for number in (1, 2):
        os.dup2(said, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 1
    try:
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.path[:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        snakemake.cli.main([*request["arguments"], "--dry-run"])
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
