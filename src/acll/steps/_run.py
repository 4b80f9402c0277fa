"""What all steps share: reading arguments, and saying what went wrong."""

import argparse
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from acll.errors import UserError
from acll.settings import Settings


class StepSettings(Settings):
    """What a step is told: beside its own settings the identity of its code and libraries, and of outside inputs.

    They are part of the key under which unfinished work is kept: a step never goes on with what other code made.
    """

    code: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults
    outside: str = ""


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line's `--name value` pairs, typed as its signature says.

    Paths come as they are, a list or an optional one may be empty, and settings come as the path of a JSON file. A
    `UserError` ends the step with its message and exit code 1.
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
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _value(hint: Any, given: list[str]) -> Any:
    if typing.get_origin(hint) is list:
        return [Path(one) for one in given]
    if isinstance(hint, types.UnionType):  # Path | None
        return Path(given[0]) if given else None
    if hint is int:
        return int(given[0])
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint.model_validate(json.loads(Path(given[0]).read_text(encoding="utf-8")))
    return Path(given[0])
