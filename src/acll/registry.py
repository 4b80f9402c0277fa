"""Kinds of tasks and of methods, each in a file of its own: a file more is a kind more, and nothing
else changes.

In a package of kinds every module but `base`, `registry` and those that begin with `_` is a kind,
called as the module, and has one class of that name: the one whose key (`source`, `type`) can only
be this name.
"""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import Discriminator, Tag

from acll.settings import Settings

_T = TypeVar("_T", bound=Settings)
_NO_KINDS = {"base", "registry"}


def kinds(package: str) -> list[str]:
    """Return the names of the kinds in a package, sorted."""
    folder = Path(str(import_module(package).__file__)).parent
    names = (path.stem for path in folder.glob("[!_.]*.py"))  # `.…` are of editors
    return sorted(name for name in names if name.isidentifier() and name not in _NO_KINDS)


def load_kind(package: str, key: str, name: str, base: type[_T]) -> type[_T]:
    """Return the class of a kind: the subclass of `base` in its module whose `key` can only be
    `name`.

    Raises ValueError for a name that is no kind, TypeError where its module has no such class.
    """
    if name not in kinds(package):
        raise ValueError(f"must be one of {', '.join(kinds(package))}")
    module = import_module(f"{package}.{name}")
    for one in vars(module).values():
        own = isinstance(one, type) and issubclass(one, base) and one.__module__ == module.__name__
        if own and _only(one, key) == name:
            found: type[_T] = one
            return found
    raise TypeError(f"{module.__name__} has no {base.__name__} whose {key} is {name!r}")


def union(package: str, key: str, base: type[Settings], default: str | None = None) -> Any:
    """Return the type of any of the kinds, told apart by `key`. default: the kind where there is no
    key."""

    def tag(value: Any) -> Any:
        if not isinstance(value, dict):
            return getattr(value, key, default)
        return str(value[key]) if key in value else default  # a name that is none is told as such

    types = [Annotated[load_kind(package, key, name, base), Tag(name)] for name in kinds(package)]
    return Annotated[Union[tuple(types)], Discriminator(tag)]  # noqa: UP007 - made of a list


def _only(settings: type[Settings], key: str) -> Any:
    """Return the one value that a key can have; None where there are more, or it is not there."""
    field = settings.model_fields.get(key)
    values = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    return values[0] if len(values) == 1 else None
