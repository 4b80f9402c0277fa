"""Kinds of tasks and of methods, each in a file of its own: a file more is a kind more, and nothing
else changes.

In a package of kinds every module but `base`, `registry` and those that begin with `_` is a kind,
called as the module, and has one class of that name: the one whose key (`source`, `type`) can only
be this name.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

from pydantic import BeforeValidator, Discriminator, SerializeAsAny, Tag, TypeAdapter

from acll import plugins
from acll.settings import Settings

_T = TypeVar("_T", bound=Settings)
_NO_KINDS = {"base", "registry"}
_PLUGGED: dict[str, plugins.PluginKind] = {"source": "source", "type": "method"}  # by their keys


def kinds(package: str) -> list[str]:
    """Return the names of the kinds in a package, sorted."""
    folder = Path(str(import_module(package).__file__)).parent
    names = (path.stem for path in folder.glob("[!_.]*.py"))  # `.…` are of editors
    return sorted(name for name in names if name.isidentifier() and name not in _NO_KINDS)


def load_kind(package: str, key: str, name: str, base: type[_T]) -> type[_T]:
    """Return the class of a kind: the subclass of `base` in its module, or the plug-in, whose `key`
    can only be `name`.

    Raises ValueError for a name that is no kind, TypeError where its module has no such class.
    """
    if name not in kinds(package):
        plugged = _plugged(key, base).get(name)
        if plugged is not None:
            return plugged
        raise ValueError(f"must be one of {', '.join(kinds(package))}")
    module = import_module(f"{package}.{name}")
    for one in vars(module).values():
        own = isinstance(one, type) and issubclass(one, base) and one.__module__ == module.__name__
        if own and plugins.only_value(one, key) == name:
            found: type[_T] = one
            return found
    raise TypeError(f"{module.__name__} has no {base.__name__} whose {key} is {name!r}")


def _plugged(key: str, base: type[_T]) -> dict[str, type[_T]]:
    """Return the plug-ins that are kinds, by name."""
    kind = _PLUGGED[key]
    found = {name: plugins.required(kind, name).value for name in plugins.names(kind)}
    return {name: one for name, one in found.items() if issubclass(one, base)}


def any_kind(package: str, key: str, base: type[Settings], default: str | None = None) -> Any:
    """Return the type of any of the kinds, those of plug-ins among them, told apart by `key`.

    default: the kind where there is no key.
    """

    def read(value: Any) -> Any:
        if isinstance(value, base):
            return value
        plugged = tuple(_plugged(key, base).items())
        return _union(package, key, base, default, plugged).validate_python(value)

    return Annotated[base, BeforeValidator(read), SerializeAsAny()]  # type: ignore[type-arg]


@cache
def _union(
    package: str,
    key: str,
    base: type[Settings],
    default: str | None,
    plugged: tuple[tuple[str, type[Settings]], ...],
) -> TypeAdapter[Any]:
    def tag(value: Any) -> Any:
        if not isinstance(value, dict):
            return default
        return str(value[key]) if key in value else default  # a name that is none is told as such

    known = {name: load_kind(package, key, name, base) for name in kinds(package)} | dict(plugged)
    types = tuple(Annotated[one, Tag(name)] for name, one in known.items())
    union: Any = Annotated[Union[types], Discriminator(tag)]  # noqa: UP007 - made of a list
    return TypeAdapter(union)
