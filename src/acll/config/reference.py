"""The reference of every key of a configuration, in Markdown, made from the typed configuration.

`make docs` writes config/README.md with it; a test keeps that file current.
"""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from acll.config.configuration import Configuration
from acll.config.given import LearnedNetwork
from acll.config.sequences import Sequence, Series
from acll.data.sources.registry import SOURCES, source
from acll.data.task import Task
from acll.methods.registry import METHODS, method
from acll.networks.spec import BackboneNetwork, DecoderNetwork, PerceptronNetwork, PluginNetwork
from acll.registry import kinds
from acll.search.settings import Search
from acll.settings import NameOf, Settings
from acll.training.settings import Training

INTRODUCTION = """# Configurations

`make run CONFIG=<name>` runs `config/<name>.yaml`. Here is every key; `make docs` makes this file
from the types in `src/acll`. A mistake is reported before any job starts, in a line with the key,
its value and what is allowed; `make check CONFIG=<name>` does nothing else.

Names of tasks, networks, sequences and methods are made of small letters, digits and `_`.
"""


def sections() -> list[tuple[str, type[Settings]]]:
    """Return the sections of a configuration: a title, and the settings that may stand there."""
    found: list[tuple[str, type[Settings]]] = [
        ("The top level", Configuration),
        ("`tasks.<name>`, whatever the source", Task),
    ]
    for name in kinds(SOURCES):
        found.append((f"`tasks.<name>`, source `{name}`", source(name)))
        found += [(f"… {keys}", model) for model, keys in _inner(source(name)).items()]
    found += [
        ("`networks.<name>`, for classification", BackboneNetwork),
        ("`networks.<name>`, for segmentation, or both kinds", DecoderNetwork),
        ("`networks.<name>`, a perceptron", PerceptronNetwork),
        ("`networks.<name>`, a plug-in", PluginNetwork),
        ("`networks.<name>`, a packed network", LearnedNetwork),
        ("`sequences.<name>`", Sequence),
        ("`sequences.<name>.tasks`, a series", Series),
    ]
    found += [(f"`methods.<name>`, type `{name}`", method(name)) for name in kinds(METHODS)]
    return [*found, ("`methods.<name>.ratio`, a search", Search), ("`training`", Training)]


def _inner(model: type[Settings]) -> dict[type[Settings], str]:
    """Return the settings that stand inside others, each with the keys under which it does."""
    found: dict[type[Settings], list[str]] = {}
    for name, field in model.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Settings):
                found.setdefault(part, []).append(f"`{name}`")
    return {part: ", ".join(keys) for part, keys in found.items()}


def reference() -> str:
    """Return the whole document."""
    parts = [INTRODUCTION]
    for title, model in sections():
        words = " ".join((model.__doc__ or "").split())
        parts += [f"## {title}\n", f"{words}\n"]
        parts += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        parts += [_row(name, field) for name, field in own_fields(model).items()]
        parts.append("")
    return "\n".join(parts)


def own_fields(model: type[Settings]) -> dict[str, FieldInfo]:
    """Return the keys of a section; what all tasks have is in the section of all tasks alone."""
    common = Task.model_fields if issubclass(model, Task) and model is not Task else {}
    return {name: field for name, field in model.model_fields.items() if name not in common}


def _row(name: str, field: FieldInfo) -> str:
    description = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_type(field)} | {_default(field)} | {description} |"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value: Any = field.default
    if isinstance(value, Settings):
        return "see below"
    return f"`{json.dumps(value)}`" if value is not None else "none"


def _type(field: FieldInfo) -> str:
    """Return what values a key takes, in words, with their bounds."""
    return _named(field.metadata) or f"{_name(field.annotation)} {_bounds(field.metadata)}".strip()


def _named(metadata: Iterable[Any]) -> str:
    """Return the names that a text may be; empty where it may be any."""
    names = [f"`{name}`" for own in metadata if isinstance(own, NameOf) for name in own.names]
    return " or ".join([*names, "a plug-in"]) if names else ""


def _bounds(metadata: Iterable[Any]) -> str:
    """Return the bounds of a number, in signs."""
    bounds = [
        f"{sign} {limit:g}"
        for part in metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        # a bound of its own, or several in the metadata of a field
        for own in (part, *getattr(part, "metadata", ()))
        if (limit := getattr(own, name, None)) is not None
    ]
    return ", ".join(bounds)


def _name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin is Annotated:
        first, *metadata = get_args(annotation)
        return _named(metadata) or f"{_name(first)} {_bounds(metadata)}".strip()
    if annotation in (int, float, str, bool):
        return {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}[
            annotation
        ]
    if origin is list:
        return "list"
    if origin is tuple:
        return "number or [height, width]"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Settings)):
        return "mapping"
    kinds = [_name(part) for part in get_args(annotation) if part is not type(None)]
    return " or ".join(dict.fromkeys(kinds))


if __name__ == "__main__":
    print(reference(), end="")
