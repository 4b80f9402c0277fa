"""Plug-ins: Python objects of a user's own that stand where built-in ones stand.

A file marks each of them with `plugin`, and a configuration names the file under `plugins`. A
process that needs one loads the files that it was told of: by a configuration (`use`), by whoever
loads a packed network (`add_plugins`), or, in the jobs of a run, by the variable PLUGINS_KEY.
Nothing else is ever loaded, so no packed file and no result can make this process run code.
"""

import importlib
import inspect
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    overload,
)

from acll.errors import UserError, suggestion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor, nn

    from acll.data.task import Task
    from acll.methods.base import Method

PLUGINS_KEY = "ACLL_PLUGINS"  # the variable by which a run tells its jobs which files to load
ENTRY_POINTS = "acll.plugins"  # the group of entry points of installed packages
_PREFIX = "acll_plugin_"  # of the modules of files: no other module is called so
_MARK = "__acll_plugin__"

PluginKind = Literal["source", "network", "loss", "metric", "augmentation", "method"]
# what functions get, by position
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "network": ("kind", "classes", "channels"),
    "loss": ("logits", "labels", "weights"),
    "metric": ("confusion",),
    "augmentation": ("images", "labels", "generator"),
}
# of classes, the key whose one value is their name
_NAMING_KEYS = {"source": "source", "method": "type"}
_MOST_NAMES = 5  # that a line lists


class LossFunction(Protocol):
    """The loss of a batch."""

    def __call__(self, logits: "Tensor", labels: "Tensor", weights: "Tensor | None", /) -> "Tensor":
        """Return a scalar. logits: [N, C] or [N, C, H, W]. labels: [N] or [N, H, W], where 255 is
        to be ignored in masks; after mixup or CutMix shares of classes, floats [N, C]. weights: of
        the classes [C], or None."""


class MetricFunction(Protocol):
    """A score of a split."""

    def __call__(self, confusion: "NDArray[np.int64]", /) -> float:
        """Return a number in [0, 1]; higher is better. confusion: of all images or pixels [C, C];
        rows are the truth."""


class AugmentationFunction(Protocol):
    """A random change of a batch in training."""

    def __call__(
        self, images: "Tensor", labels: "Tensor", generator: "Generator", /
    ) -> "tuple[Tensor, Tensor]":
        """Return both, of the same shapes and types. images: normalised floats [N, C, H, W].
        labels: [N] or [N, H, W]. generator: on the CPU; what is drawn from it can be repeated."""


# (kind of the task, number of classes, channels of the images, and options by name) → a module with
# the parts `encoder` and `head`, for segmentation with a `decoder` between them, and no others; or,
# for classification, any module that ends with a linear layer
_Network = TypeVar("_Network", bound="Callable[..., nn.Module]")
_Loss = TypeVar("_Loss", bound=LossFunction)
_Metric = TypeVar("_Metric", bound=MetricFunction)
_Augmentation = TypeVar("_Augmentation", bound=AugmentationFunction)
_Source = TypeVar("_Source", bound="type[Task]")
_Method = TypeVar("_Method", bound="type[Method]")


class PluginError(UserError):
    """A plug-in cannot be loaded, breaks its protocol, or is not there."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in. place: as it was named. module: in which it is defined. tasks: of a network, the
    kinds of tasks that it can learn."""

    kind: str
    name: str
    value: Any
    place: str
    module: str
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class CodeOrigin:
    """Where the code of a plug-in lies.

    label: its kind and its name. name: of the function or class. others: of the other plug-ins in
    its module. root: the folder below which its own modules lie. package: the only package there
    that is its own, or empty: whatever lies beside its file.
    """

    label: str
    module: str
    name: str
    path: Path
    others: tuple[str, ...]
    root: Path
    package: str


# --------------------------------------------------------------------------------------------------
# marking


@overload
def plugin(
    kind: Literal["network"], name: str | None = None, *, tasks: Sequence[str] = ...
) -> Callable[[_Network], _Network]: ...
@overload
def plugin(kind: Literal["loss"], name: str | None = None) -> Callable[[_Loss], _Loss]: ...
@overload
def plugin(kind: Literal["metric"], name: str | None = None) -> Callable[[_Metric], _Metric]: ...
@overload
def plugin(
    kind: Literal["augmentation"], name: str | None = None
) -> Callable[[_Augmentation], _Augmentation]: ...
@overload
def plugin(kind: Literal["source"]) -> Callable[[_Source], _Source]: ...
@overload
def plugin(kind: Literal["method"]) -> Callable[[_Method], _Method]: ...
def plugin(
    kind: PluginKind | None = None, name: str | None = None, *, tasks: Sequence[str] | None = None
) -> Callable[[Any], Any]:
    """Return a decorator that makes a function or a class a plug-in.

    name: that of a function in configurations (default: its own). A class is called by the one
    value of its key `source` or `type`. tasks: the kinds of tasks that a network can learn
    (default: classification). Raises PluginError.
    """
    if kind is None or callable(kind):
        raise PluginError(f'write `@plugin("loss")`, or another kind: {_listed_kinds()}')
    if kind not in get_args(PluginKind):
        raise PluginError(_no_kind(kind, name))
    if name is not None and not isinstance(name, str):
        raise PluginError(f"the name of a plug-in must be text, and not {name!r}")
    if tasks is not None and kind != "network":
        raise PluginError(f"a {kind} has no `tasks`; a network has")
    learned = ("classification",) if tasks is None else tuple(tasks)
    if not learned or not set(learned) <= {"classification", "segmentation"}:
        raise PluginError(
            f"tasks = {tasks!r}: must be a list of classification, segmentation, or both"
        )

    def mark(value: Any) -> Any:
        if kind in _NAMING_KEYS:
            own = _name_of_class(kind, name, value)
        else:
            own = name or str(getattr(value, "__name__", ""))
            _refuse_object(kind, own, value)
            _refuse_signature(kind, own, value)
        setattr(value, _MARK, (kind, own, learned if kind == "network" else ()))
        return value

    return mark


def _listed_kinds() -> str:
    return ", ".join(get_args(PluginKind))


def _no_kind(kind: object, name: object) -> str:
    """Return in words that there is no such kind, and which one is likely to be meant."""
    words = f"there is no plug-in of the kind {kind!r}"
    if name in get_args(PluginKind):
        return f'{words}: the kind comes first: `@plugin("{name}", "{kind}")`'
    return words + (suggestion(str(kind), list(get_args(PluginKind))) or f": {_listed_kinds()}")


def _name_of_class(kind: str, given: str | None, value: Any) -> str:
    """Return what a class is called by its key. Raises PluginError where it is no such class, or
    was given another name."""
    key = _NAMING_KEYS[kind]
    is_one = inspect.isclass(value) and hasattr(value, "model_fields")
    name = only_value(value, key) if is_one else None
    if not isinstance(name, str):
        base = "Task or RawData" if kind == "source" else "Method"
        raise PluginError(
            f"a {kind} is a class that derives from {base} and whose key `{key}` has one value: "
            f'{key}: Literal["<its name>"]'
        )
    if given not in (None, name):
        raise PluginError(f'the {kind} {name!r} is called by its key: write `@plugin("{kind}")`')
    return name


def _refuse_object(kind: str, name: str, value: Any) -> None:
    """Raise PluginError for what is neither a function nor, of a network, a class."""
    rather = "write a `def` that calls it"
    if inspect.isclass(value):
        if kind == "network":
            return
        what = "a class"
    elif not inspect.isfunction(value):
        what = f"an object of the class {type(value).__name__}"
    elif value.__name__ == "<lambda>":
        what, rather = "a lambda", "write it as a `def`"
    else:
        return
    label = f"the {kind} {name!r}" if name.isidentifier() else f"the {kind}"
    allowed = "a function or a class" if kind == "network" else "a function"
    raise PluginError(f"{label} is {what} and must be {allowed}: {rather}")


def only_value(settings: Any, key: str) -> Any:
    """Return the one value that a key of settings can have; None where there are more, or it is
    not there."""
    field = settings.model_fields.get(key)
    values = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    return values[0] if len(values) == 1 else None


def _refuse_signature(kind: str, name: str, value: Any) -> None:
    """Raise PluginError unless a function takes what it will be given, by position."""
    wanted = _ARGUMENTS[kind]
    must = f"the {kind} {name!r} must take ({', '.join(wanted)}), in this order"
    try:
        signature = inspect.signature(value)
    except ValueError:  # of classes that are derived from some of Python's own
        raise PluginError(f"{must}; it does not say what it takes") from None
    try:
        taken = signature.bind(*wanted).arguments
    except TypeError:
        taken = {}
    places = [(signature.parameters[own], given) for own, given in taken.items()]
    if not places or any(_misplaced(kind, *place) for place in places):
        raise PluginError(f"{must}, and all else with a default; it takes {parameters_of(value)}")


# how the words in the name of a parameter of a network begin, by what it will be given
_LIKE = {
    "kind": ("kind", "task"),
    "classes": ("class", "label", "out"),
    "channels": ("chan", "band", "in"),
}


def _misplaced(kind: str, parameter: inspect.Parameter, given: Any) -> bool:
    """Return whether a parameter is called as another value than the one it will be given, or is an
    option of a network, which would take that value in silence."""
    if parameter.name in _ARGUMENTS[kind]:
        return bool(parameter.name != given)
    option = kind == "network" and parameter.default is not inspect.Parameter.empty
    words = parameter.name.lower().split("_")
    return option and not any(word.startswith(_LIKE[given]) for word in words)


def parameters_of(function: Callable[..., Any]) -> str:
    """Return what a function or a class takes, with defaults and without types."""
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    plain = [one.replace(annotation=empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=empty))


# --------------------------------------------------------------------------------------------------
# loading

_places: tuple[str, ...] | None = None  # None: those of the environment
_known: "dict[tuple[str, str], Plugin] | None" = None  # None: not loaded yet
_loaded: dict[tuple[str, bytes], ModuleType] = {}  # by place and content


def use(places: Iterable[str]) -> None:
    """Let this process know the plug-ins of these places, and no others.

    A place is a file with its folder, or the name of a module or an entry point. A file that was
    edited is loaded anew.
    """
    global _places, _known
    _places, _known = tuple(dict.fromkeys(places)), None


def add_plugins(places: str | Path | Iterable[str | Path]) -> None:
    """Let this process know the plug-ins of more places.

    Raises PluginError for one that is bad; then it knows what it knew before.
    """
    before = places_in_use()
    several = [places] if isinstance(places, str | Path) else places
    use([*before, *(place_of(str(one), Path()) for one in several)])
    try:
        known()
    except PluginError:
        use(before)
        raise


def place_of(text: str, folder: Path) -> str:
    """Return a place as it was named in a folder, as the whole process understands it."""
    return str((folder / Path(text).expanduser()).absolute()) if text.endswith(".py") else text


def places_in_use() -> tuple[str, ...]:
    """Return the places of the plug-ins that this process knows."""
    if _places is not None:
        return _places
    told = json.loads(os.environ.get(PLUGINS_KEY, "[]"))
    return tuple(map(str, told))


def known() -> dict[tuple[str, str], Plugin]:
    """Return all plug-ins that this process knows, by kind and name. Raises PluginError."""
    global _known
    if _known is None:
        _known = _load(places_in_use())
    return _known


def _load(places: Iterable[str]) -> dict[tuple[str, str], Plugin]:
    found: dict[tuple[str, str], Plugin] = {}
    stems: dict[str, str] = {}
    for place in places:
        if place.endswith(".py") and stems.setdefault(Path(place).stem, place) != place:
            raise PluginError(f"{place}: another file of plug-ins is called {Path(place).name} too")
        module = _module(place)
        own = list(_plugins_in(module, place))
        if not own:
            raise PluginError(f"{place}: has no plug-in: {_why_none(module)}")
        for one in own:
            if found.setdefault((one.kind, one.name), one).value is not one.value:
                other = found[one.kind, one.name].place
                raise PluginError(f"{place}: the {one.kind} {one.name!r} is in {other}, too")
    return found


def _plugins_in(module: ModuleType, place: str) -> Iterator[Plugin]:
    """Yield the plug-ins of a module. Of an installed one, all that its package brings there."""
    for value in list(vars(module).values()):
        mark = vars(value).get(_MARK) if hasattr(value, "__dict__") else None
        if mark is not None and value.__module__.split(".")[0] == module.__name__.split(".")[0]:
            kind, name, tasks = mark
            yield Plugin(kind, name, value, place, value.__module__, tasks)


def _functions_and_classes(module: ModuleType) -> list[Any]:
    """Return those that a module has, its own and imported ones."""
    values = vars(module).values()
    return [one for one in values if inspect.isfunction(one) or inspect.isclass(one)]


def _why_none(module: ModuleType) -> str:
    """Return in words what a module has in place of plug-ins, and what to do."""
    values = _functions_and_classes(module)
    elsewhere = [one for one in values if _MARK in vars(one)]
    if elsewhere:
        name, other = elsewhere[0].__name__, elsewhere[0].__module__
        return f"it imports {name} from {other}; name that file or module in its place"
    of_module = [one for one in values if one.__module__ == module.__name__]
    for holder in filter(inspect.isclass, of_module):
        for inner, value in vars(holder).items():
            if inspect.isfunction(value) and _MARK in vars(value):
                return f"move {inner} out of the class {holder.__name__}"
    own = [one.__name__ for one in of_module if one.__name__ != "<lambda>"]
    if not own:
        return "it defines no function and no class"
    more = ", …" if len(own) > _MOST_NAMES else ""
    return (
        f'write `@plugin("loss")`, or another kind, above one of '
        f"{', '.join(own[:_MOST_NAMES])}{more}; kinds: {_listed_kinds()}"
    )


def hint(kind: PluginKind, name: str) -> str | None:
    """Return in words what this process has loaded that is called so, in letters of any case, and
    is no plug-in of that kind; None where there is none."""
    for (other, known_name), one in known().items():
        if known_name.lower() == name.lower():
            where = f"{known_name} of {Path(one.place).name}"
            return f"{where} is a plug-in of the kind {other}"
    for place in places_in_use():
        module = _module(place)
        for one in _functions_and_classes(module):
            own = one.__module__ == module.__name__ and _MARK not in vars(one)
            if own and one.__name__.lower() == name.lower():
                where = f"{one.__name__} of {Path(place).name}"
                return f'write `@plugin("{kind}")` above {where}'
    return None


def find(kind: PluginKind, name: str) -> Plugin | None:
    """Return a plug-in, or None where this process knows none of that name."""
    return known().get((kind, name))


def names(kind: PluginKind) -> list[str]:
    """Return the names of the plug-ins of a kind."""
    return [name for one, name in known() if one == kind]


def required(kind: PluginKind, name: str) -> Plugin:
    """Return a plug-in. Raises PluginError where this process knows none of that name."""
    found = find(kind, name)
    if found is None:
        raise PluginError(
            f"there is no {kind} {name!r} in acll: if it is a plug-in, name the file that has it "
            "(`--plugins FILE`, or `acll.load(path, plugins=[FILE])`)"
        )
    return found


def _module(place: str) -> ModuleType:
    """Return the module of a place. Raises PluginError where it cannot be loaded."""
    if not place.endswith(".py"):
        return _installed(place)
    path = Path(place)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PluginError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise PluginError(f"{path}: cannot be read: {error}") from None
    key = place, content
    if key not in _loaded:
        _loaded[key] = _run(path)
    return _loaded[key]


class _AsItIs(SourceFileLoader):
    """A loader that reads the file itself: times of compiled code miss edits within a second."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the file as it is now."""
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _run(path: Path) -> ModuleType:
    """Run a file, which may import what lies beside it. Raises PluginError."""
    name = _PREFIX + path.stem
    spec = spec_from_file_location(name, path, loader=_AsItIs(name, str(path)))
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last, so that it hides nothing
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(f"{path}: {_what_happened(error, path)}") from None
    return module


def _what_happened(error: BaseException, path: Path) -> str:
    """Return in a line what went wrong in a file, and in which line of it."""
    steps = traceback.extract_tb(error.__traceback__)
    lines = [step.lineno for step in steps if step.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = f"line {line}: " if line else ""
    if isinstance(error, PluginError):
        return f"{where}{error}"
    said = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return f"{where}{type(error).__name__}: {said}".removesuffix(": ")


def _installed(place: str) -> ModuleType:
    """Return the module of an entry point, or of this name. Raises PluginError."""
    from importlib.metadata import entry_points

    points = entry_points(group=ENTRY_POINTS, name=place)
    name = next((point.module for point in points), place)
    neither = PluginError(
        f"{place}: neither a file (its name would end with .py), nor an installed module or an "
        f"entry point of {ENTRY_POINTS}"
    )
    if not all(part.isidentifier() for part in name.split(".")):
        raise neither
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise neither from None
        raise PluginError(f"{place}: {error}") from None
    except (Exception, SystemExit) as error:
        path = Path(str(getattr(sys.modules.get(name), "__file__", "")))
        raise PluginError(f"{place}: {_what_happened(error, path)}") from None


# --------------------------------------------------------------------------------------------------
# using


def failure_of(kind: PluginKind, name: str, error: BaseException) -> str:
    """Return in a line what went wrong in a plug-in, and in which line of its file."""
    return _what_happened(error, _path_of(required(kind, name)))


def _path_of(one: Plugin) -> Path:
    """Return the file in which a plug-in is defined."""
    if one.module.startswith(_PREFIX):  # there may be another file of this name
        return Path(one.place)
    return Path(str(sys.modules[one.module].__file__))


def function_of(kind: PluginKind, name: str) -> Callable[..., Any]:
    """Return the function of a plug-in. Raises PluginError where there is none."""
    value: Callable[..., Any] = required(kind, name).value
    return value


def loss_with(name: str, weights: "Tensor | None") -> "Callable[[Tensor, Tensor], Tensor]":
    """Return the loss of logits and labels that a plug-in is. weights: of the classes [C]."""
    function = function_of("loss", name)

    def loss(logits: "Tensor", labels: "Tensor") -> "Tensor":
        found: Tensor = function(logits, labels, weights)
        return found

    return loss


def metric_value(name: str, confusion: "NDArray[np.int64]") -> float:
    """Return the value of a metric that is a plug-in. confusion: [C, C]; rows are the truth.

    Raises PluginError where it is no number in [0, 1].
    """
    value = function_of("metric", name)(confusion)
    number = math.nan
    with suppress(TypeError, ValueError, RuntimeError):  # of text, of tensors with several values
        number = math.nan if isinstance(value, str) else float(value)
    if not 0 <= number <= 1:
        raise PluginError(
            f"the metric {name!r} gives {described(value)}: must be a number in [0, 1]"
        )
    return number


def augmented_by(
    name: str, images: "Tensor", labels: "Tensor", generator: "Generator"
) -> "tuple[Tensor, Tensor]":
    """Return a batch that a plug-in has changed. Raises PluginError where its form has changed."""
    forms = [_form(one) for one in (images, labels)]  # before: a plug-in may change them in place
    changed = function_of("augmentation", name)(images, labels, generator)
    if not isinstance(changed, tuple | list) or [_form(one) for one in changed] != forms:
        raise PluginError(
            f"the augmentation {name!r} gives {described(changed)}: must be images and labels, of "
            f"the shapes and types that it gets: {described((images, labels))}"
        )
    return changed[0], changed[1]


def described(value: Any) -> str:
    """Return in words what a function has given: a number as it is, of a tensor its form."""
    if isinstance(value, tuple | list) and len(value) <= _MOST_NAMES:
        return f"({', '.join(map(described, value))})"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        where = str(getattr(value, "device", "cpu"))
        on = "" if where == "cpu" else f" on {where}"
        if not value.shape:
            item = value.item()
            return f"{item:g}{on}" if isinstance(item, int | float) else repr(item)
        return f"{type(value).__name__} {kind} {list(value.shape)}{on}"
    if value is None:
        return "None"
    if isinstance(value, int | float):
        return f"the {type(value).__name__} {value:g}"
    return f"an object of the class {type(value).__name__}"


def _form(value: Any) -> tuple[Any, ...]:
    """Return what a tensor keeps when its values change."""
    return tuple(getattr(value, name, None) for name in ("shape", "dtype", "device"))


def code_origins(needed: Mapping[PluginKind, Iterable[str | None]]) -> tuple[CodeOrigin, ...]:
    """Return where the code of those names lies that are plug-ins, sorted. needed: by kind."""
    plugged = known()
    found = {
        _origin_of(plugged[kind, name])
        for kind, names in needed.items()
        for name in names
        if name is not None and (kind, name) in plugged
    }
    return tuple(sorted(found))


def origin_labelled(label: str) -> CodeOrigin:
    """Return where the code of a plug-in lies, by its label. Raises PluginError where none is."""
    for (kind, name), one in known().items():
        if f"{kind} {name}" == label:
            return _origin_of(one)
    raise PluginError(f"there is no {label} in the files of plug-ins that this job was given")


def _origin_of(one: Plugin) -> CodeOrigin:
    own, path = one.value.__name__, _path_of(one)
    there = {other.value.__name__ for other in known().values() if other.module == one.module}
    root, package = path.parent, ""
    if not one.module.startswith(_PREFIX):  # of an installed package, which may lie in others
        root = path.parents[one.module.count(".") + (path.name == "__init__.py")]
        package = one.module.split(".")[0]
    label = f"{one.kind} {one.name}"
    return CodeOrigin(label, one.module, own, path, tuple(sorted(there - {own})), root, package)
