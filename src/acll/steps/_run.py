"""What all steps share: reading arguments, writing small files whole, and saying what went wrong."""

import argparse
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from acll.errors import UserError


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line's `--name value` pairs, typed as its signature says.

    Paths come as they are, a list or an optional one may be empty, and settings come as JSON. A `UserError` ends the
    step with its message and exit code 1.
    """
    hints = typing.get_type_hints(main)
    parser = argparse.ArgumentParser(prog=f"python -m {sys.modules['__main__'].__spec__.name}")  # type: ignore[union-attr]
    for name in inspect.signature(main).parameters:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, nargs="*", required=True)
    given = vars(parser.parse_args())
    try:
        main(**{name: _value(hints[name], given[name]) for name in given})
    except (UserError, OSError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def _value(hint: Any, given: list[str]) -> Any:
    if typing.get_origin(hint) is list:
        return [Path(one) for one in given]
    if isinstance(hint, types.UnionType):  # Path | None
        return Path(given[0]) if given else None
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint.model_validate(json.loads(given[0])["settings"])
    return Path(given[0])


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON with sorted keys, so that equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
