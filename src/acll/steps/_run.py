"""What all steps share: arguments, the lock of the run, digests of what was written, and saying
what went wrong."""

import argparse
import contextlib
import importlib
import inspect
import json
import signal
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acll.errors import UserError, harmless
from acll.files import checkpoints_of, keeps_checkpoints, sha256, write_text
from acll.lock import job


def run_step(main: Callable[..., None]) -> None:
    """Call `main` with the command line's `--name value` pairs, typed as its signature says.

    Paths come as they are; a list or an optional one may be empty. The parameters come by standard
    input, as the plan wrote them (`acll.plan.Job.text`): `params` gets them typed, `key`, where a
    step has it, as they are. `@file` stands for arguments, one a line. `--digests` names the file
    for the digests of all outputs. A `UserError` ends the step with its message and exit code 1.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Python's own handler raises, and callbacks of libraries lose what is raised in them.
        # Files are replaced whole, so that a step may end anywhere.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    hints = typing.get_type_hints(main)
    step = inspect.getmodulename(main.__code__.co_filename)
    parser = argparse.ArgumentParser(prog=f"acll.steps.{step}", fromfile_prefix_chars="@")
    names = [name for name in inspect.signature(main).parameters if name not in ("params", "key")]
    for name in names:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, nargs="*", required=True)
    parser.add_argument("--digests", type=Path)
    parser.add_argument("--outputs", nargs="*", default=[])
    given = vars(parser.parse_args())
    digests, outputs = given.pop("digests"), given.pop("outputs")
    text = sys.stdin.read()
    try:
        told = json.loads(text)
        # by name, so that this counts as no code of the step: no result depends on it
        importlib.import_module("acll.code").refuse_edited_plugins(told.get("code", {}))
        arguments = {name: _value(hints[name], given[name]) for name in names}
        arguments["params"] = hints["params"].model_validate_json(json.dumps(told["params"]))
        if "key" in hints:
            arguments["key"] = text
        with job(Path.cwd()):
            # outputs are named in a run, and may not be by a person
            if outputs and not keeps_checkpoints():
                _drop_checkpoints(hints, given, outputs)
            main(**arguments)
            if digests is not None:
                write_text(digests, "".join(f"{sha256(Path(path))}  {path}\n" for path in outputs))
    except (UserError, OSError) as error:
        message = str(error) if isinstance(error, UserError) else harmless(error)
        with contextlib.suppress(OSError):  # the log may lie on a disk that is full
            for line in message.split("\n"):
                print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def _drop_checkpoints(
    hints: dict[str, Any], given: dict[str, list[str]], outputs: list[str]
) -> None:
    """Remove the unfinished work on what this step reads.

    The step that wrote it keeps it: until another step begins to read it, nobody has accepted it.
    """
    for name, paths in given.items():
        for path in paths if hints[name] is not int else ():
            if path not in outputs:
                for checkpoint in checkpoints_of(Path(path)):
                    with contextlib.suppress(OSError):  # it is only in the way
                        checkpoint.unlink(missing_ok=True)


def _value(hint: Any, given: list[str]) -> Any:
    if typing.get_origin(hint) is list:
        return [Path(one) for one in given]
    if isinstance(hint, types.UnionType):  # Path | None
        return Path(given[0]) if given else None
    return int(given[0]) if hint is int else Path(given[0])
