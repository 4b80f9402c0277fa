"""The reference of every key of a configuration, in Markdown, made from the typed configuration.

`make docs` writes config/README.md with it; a test keeps that file current.
"""

import json
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from acll import settings

SECTIONS: tuple[tuple[str, type[settings.Settings]], ...] = (
    ("The whole", settings.Configuration),
    ("`tasks.<name>`, whatever the source", settings.Task),
    ("`tasks.<name>`, source `digits`", settings.Digits),
    ("`tasks.<name>`, source `generated`", settings.Generated),
    ("`tasks.<name>`, source `image_folder`", settings.ImageFolder),
    ("`tasks.<name>`, source `mask_folder`", settings.MaskFolder),
    ("`tasks.<name>`, source `table`", settings.Table),
    ("`tasks.<name>`, source `coco`", settings.Coco),
    ("… `train`, `val`, `test`", settings.CocoSplit),
    ("`tasks.<name>`, source `cub200`", settings.Cub200),
    ("`tasks.<name>`, source `torchvision`", settings.Torchvision),
    ("`networks.<name>`, for classification", settings.BackboneNetwork),
    ("`networks.<name>`, for segmentation, or both kinds", settings.DecoderNetwork),
    ("`networks.<name>`, a perceptron", settings.PerceptronNetwork),
    ("`sequences.<name>`", settings.Sequence),
    ("`sequences.<name>.tasks`, a series", settings.Series),
    ("`methods.<name>`, packing", settings.Packing),
    ("`methods.<name>.ratio`, a search", settings.Search),
    ("`methods.<name>`, individual networks", settings.Individual),
    ("`methods.<name>`, joint training", settings.Joint),
    ("`methods.<name>`, fine-tuning", settings.FineTuning),
    ("`methods.<name>`, frozen features", settings.Frozen),
    ("`methods.<name>`, learning without forgetting", settings.LwF),
    ("`methods.<name>`, elastic weight consolidation", settings.EWC),
    ("`training`", settings.Training),
)
INTRODUCTION = """# Configurations

`make run CONFIG=<name>` runs `config/<name>.yaml`. Here is every key; the file is made by `make docs` from
`src/acll/settings.py`. A mistake is reported before any job starts, in a line with the key, its value and what is
allowed; `make check CONFIG=<name>` does nothing else.

Names of tasks, networks, sequences and methods are made of small letters, digits and `_`.
"""


def reference() -> str:
    """The whole document."""
    parts = [INTRODUCTION]
    for title, model in SECTIONS:
        words = " ".join((model.__doc__ or "").split())
        parts.append(f"## {title}\n\n{words}\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |")
        parts[-1] += "".join(f"\n{_row(name, field)}" for name, field in _own(model).items()) + "\n"
    return "\n".join(parts)


def _own(model: type[settings.Settings]) -> dict[str, FieldInfo]:
    """The keys of a section; those that all tasks have stand in theirs alone."""
    common = settings.Task.model_fields if issubclass(model, settings.Task) and model is not settings.Task else {}
    return {name: field for name, field in model.model_fields.items() if name not in common}


def _row(name: str, field: FieldInfo) -> str:
    description = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_type(field)} | {_default(field)} | {description} |"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value: Any = field.default
    if isinstance(value, settings.Settings):
        return "see below"
    return f"`{json.dumps(value)}`" if value is not None else "none"


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(part, name):g}"
        for part in field.metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if hasattr(part, name)
    ]
    return " ".join([_name(field.annotation), ", ".join(bounds)]).strip()


def _name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin is Annotated:
        return _name(get_args(annotation)[0])
    if annotation in (int, float, str, bool):
        return {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}[annotation]
    if origin is list:
        return "list"
    if origin is tuple:
        return "number or [height, width]"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, settings.Settings)):
        return "mapping"
    kinds = [_name(part) for part in get_args(annotation) if part is not type(None)]
    return " or ".join(dict.fromkeys(kinds))


if __name__ == "__main__":
    print(reference(), end="")
