"""Reading and checking a configuration: each fault is a line with key, value and what is allowed.

`load_configuration(path)` and `parse(mapping)` return a `Configuration` or raise
`ConfigurationError`. Nothing here imports torch: a configuration is checked before any job.
"""

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from importlib.resources import files
from math import factorial
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from acll import plugins
from acll.config import tree
from acll.config.configuration import Configuration
from acll.config.given import LearnedNetwork
from acll.config.reference import own_fields, sections
from acll.config.sequences import Sequence, Series
from acll.data.sources import registry as sources
from acll.data.task import Task
from acll.errors import UserError, suggestion
from acll.evaluation.words import listed
from acll.methods import registry as methods
from acll.methods.base import Method
from acll.methods.packing import Packing
from acll.networks.spec import (
    OF_ONE_WIDTH,
    WEIGHT_SUFFIXES,
    BackboneNetwork,
    DecoderNetwork,
    Network,
    PerceptronNetwork,
    PluginNetwork,
    learns_masks,
    why_not_wider,
)
from acll.node import DENSE, LEARNED, Node
from acll.registry import kinds
from acll.search.settings import Search
from acll.settings import (
    ALL_METRICS,
    AUGMENTATIONS,
    AUTO,
    MAX_TASKS,
    METRICS,
    MIXING,
    Settings,
)
from acll.training.settings import LOSSES, Training

VALID_NAME = re.compile(r"[a-z0-9_]+")
MOST_TASKS_IN_ALL_ORDERS = 5
_MOST_VALUES = 20  # that a line lists
_MOST_PLACES = 2  # to which a key may belong, that a line lists
LONGEST_NAME = 240  # letters of a name in a file system, less those of an ending
LONGEST_PATH = 4095 - 255  # of a path in Linux, less those of the folder of the results


class ConfigurationError(UserError):
    """The configuration cannot be run; the message has one line for each fault."""


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number, as in YAML 1.2, and a key given twice is an error.

    PyYAML itself would read `1e-4` as text and keep the last of two keys. What is in quotes is text
    here, too.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(
                    None, None, f"the key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(str(key.value))
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_configuration(path: Path) -> Configuration:
    """Read and check a configuration file.

    Raises ConfigurationError, with a line for each fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file{_meant_file(path)}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not text in UTF-8: {error}") from None
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigurationError(f"{path}: not valid YAML: {line}{error.problem}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: not valid YAML: values in too many others") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"{path}: not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{path}: empty, or not a mapping of keys to values")
    try:
        configuration, lines = parse(raw, path.parent), []
    except ConfigurationError as error:
        lines = str(error).splitlines()
    if isinstance(raw.get("name"), str) and raw["name"] != path.stem:
        lines.append(f"name = {raw['name']!r}: must be {path.stem!r}, as the file is called")
    if lines:
        raise ConfigurationError("\n".join(f"{path}: {line}" for line in lines))
    return configuration


def parse(raw: dict[str, Any], folder: Path = Path()) -> Configuration:
    """Check a configuration given as plain data. folder: in which its plug-ins lie, which are run.

    Raises ConfigurationError, with a line for each fault.
    """
    raw = _with_plugins(raw, folder)
    raw, of_series = _with_series(raw)
    faults = [line for lines in of_series.values() for line in lines]
    named = {section: _keys(raw.get(section)) for section in _NAMED}
    try:
        configuration = Configuration.model_validate(raw)
    except ValidationError as error:
        told = [("sequences", name, "tasks") for name in of_series]
        errors = [detail for detail in error.errors() if detail["loc"] not in told]
        faults += map(_line, errors)
        faults += _faults_of_names(_sound(raw, error.errors()), named)
        raise ConfigurationError("\n".join(dict.fromkeys(faults))) from None
    faults += [*_faults_of_names(configuration, named), *_values(configuration)]
    if not configuration.packed:  # else once they are opened
        faults = faults or _paths(configuration)  # needs names that are known to be sound
    if faults:
        raise ConfigurationError("\n".join(dict.fromkeys(faults)))
    return configuration


def _with_plugins(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Load the plug-ins of a configuration; return it with the places where these are.

    Nothing else can be judged without them. Raises ConfigurationError.
    """
    given = raw.get("plugins", [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        plugins.use([])
        words = "must be a list of files or modules, such as [mine.py]"
        raise ConfigurationError(f"plugins = {_short(given)}: {words}")
    faults, places = [], []
    files: list[Path] = []  # or names of modules
    for text in given:
        place = plugins.place_of(text, folder)
        file = Path(place).resolve()
        if file in files:
            faults.append(f"plugins = {text!r}: stands there twice")
            continue
        files.append(file)
        places.append(place)
        plugins.use(places)
        try:
            plugins.known()
        except plugins.PluginError as error:
            place = places.pop()
            words = str(error).removeprefix(f"{place}: ")
            if place != text and not Path(place).exists():
                words += f" ({place})"
            faults.append(f"plugins = {text!r}: {words}")
    faults = faults or _faults_of_plugins()
    if faults:
        plugins.use([])
        raise ConfigurationError("\n".join(faults))
    return raw | {"plugins": places}


def _faults_of_plugins() -> list[str]:
    """Return faults of plug-ins: of their names, and of what the classes among them have."""
    taken: dict[str, Iterable[str]] = {
        "source": kinds(sources.SOURCES),
        "method": kinds(methods.METHODS),
        "loss": LOSSES,
        "metric": ALL_METRICS,
        "augmentation": AUGMENTATIONS,
    }
    faults = []
    for (kind, name), one in plugins.known().items():
        found = []
        if name in taken.get(kind, ()):
            found.append("acll has one of this name; give it another")
        if not VALID_NAME.fullmatch(name):
            found.append("names are made of small letters, digits and _")
        if kind == "source":
            found += _faults_of_source(one.value)
        if kind == "method" and not issubclass(one.value, Method):
            found.append(f"must derive from {Method.__module__}.Method")
        where = f"plugins = {Path(one.place).name!r}: the {kind} {name!r}"
        faults += [f"{where}: {fault}" for fault in found]
    return faults


def _faults_of_source(source: type[Any]) -> list[str]:
    if not issubclass(source, Task):
        return [f"must derive from {Task.__module__}.RawData or .Task"]
    faults = []
    if "kind" not in source.model_fields:
        faults.append("must have the key `kind`")
    if source.manifest is Task.manifest:
        faults.append("must have a `manifest`")
    if source.from_files and source.raw_files is Task.raw_files:
        faults.append("must have `raw_files`, or `from_files = False`")
    if source.from_files and "path" not in source.model_fields:
        faults.append("reads files, and so must derive from RawData")
    return faults


def faults_of_opened(configuration: Configuration) -> list[str]:
    """Return what could not be told before packed networks were opened, a line for each fault.

    The rest of the configuration is sound.
    """
    names = [list(configuration.tasks), list(configuration.networks)]
    faults = [
        *_architectures(configuration),
        *_sequences(configuration, *names),
        *_growth(configuration),
        *_augmentation(configuration),
        *_going_on(configuration),
    ]
    return faults or _paths(configuration)


_NAMED = ("tasks", "networks", "sequences", "methods")  # sections of entries with names


def _keys(section: Any) -> list[str]:
    """Return the names in a section as it was given; none where it is no mapping."""
    return [name for name in section if isinstance(name, str)] if isinstance(section, dict) else []


def _sound(raw: dict[str, Any], errors: Iterable[ErrorDetails]) -> Configuration:
    """Return the entries of a faulty configuration that have no fault but unknown keys.

    So all other mistakes can be told with those that pydantic has found. errors: the latter.
    """
    raw, faulty = deepcopy(raw), set()
    for detail in errors:
        path, _ = _keys_of(detail["loc"])
        inner: Any = raw
        for key in path[:-1]:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if detail["type"] == "extra_forbidden" and isinstance(inner, dict) and len(path) > 1:
            inner.pop(path[-1], None)
        else:
            faulty.add(tuple(path[:2]))
    sections: dict[str, Any] = {}
    for section in _NAMED:
        form: Any = Configuration.model_fields[section].annotation
        read = TypeAdapter(form)
        sound = sections[section] = {}
        for name in _keys(raw.get(section)):
            if (section, name) not in faulty:
                # what was hidden behind an unknown key is told next time
                with suppress(ValidationError):
                    sound |= read.validate_python({name: raw[section][name]})
    sections |= {"name": raw.get("name"), "training": Training()}
    return Configuration.model_construct(**sections)


def _faults_of_names(configuration: Configuration, named: Mapping[str, list[str]]) -> list[str]:
    """Return faults of names, and of what does not go with what they stand for.

    named: all names of each section, those of entries that `configuration` lacks included.
    """
    return [
        *_names(configuration.name, named),
        *_overrides(configuration),
        *_architectures(configuration),
        *_packed_files(configuration),
        *_sequences(configuration, named["tasks"], named["networks"]),
        *_growth(configuration),
        *_augmentation(configuration),
    ]


def _with_series(raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the configuration with the tasks of each series written out, and faults.

    Faults by sequence; a series that cannot be written out stays as it is.
    """
    tasks, sequences = raw.get("tasks"), raw.get("sequences")
    if not isinstance(tasks, dict) or not isinstance(sequences, dict):
        return raw, {}  # a fault that is found later
    tasks, written = dict(tasks), dict(sequences)
    faults: dict[str, list[str]] = {}
    for name, sequence in sequences.items():
        given = sequence.get("tasks") if isinstance(sequence, dict) else None
        if not isinstance(given, dict):
            continue
        try:
            series = Series.model_validate(given)
        except ValidationError as error:
            where = ("sequences", str(name), "tasks")
            faults[name] = [
                _line({**detail, "loc": (*where, *detail["loc"])}) for detail in error.errors()
            ]
            continue
        base = raw["tasks"].get(series.of)
        if not isinstance(base, dict):
            names = [str(known) for known in raw["tasks"]]
            hint = suggestion(series.of, names) or _known(names)
            key = f"sequences.{name}.tasks.of"
            faults[name] = [f"{key} = {series.of!r}: there is no such task{hint}"]
            continue
        made = {one: base | changes for one, changes in series.variants().items()}
        lines = [
            f"sequences.{name}.tasks: makes {one}, but there is another task of that name"
            for one in made
            if tasks.get(one, made[one]) != made[one]
        ]
        if len(set(map(str, made.values()))) < _length(series):
            lines.append(f"sequences.{name}.tasks = {_short(given)}: a value stands there twice")
        if lines:
            faults[name] = lines
            continue
        tasks |= made
        written[name] = sequence | {"tasks": list(made)}
    return raw | {"tasks": tasks, "sequences": written}, faults


def _length(series: Series) -> int:
    """Return how many tasks a series says that it has."""
    values = series.rotated or series.noise or series.train_samples or []
    return series.permuted or series.split or len(values)


def _line(error: ErrorDetails) -> str:
    """Return a line for a fault that pydantic found: key, value, what is allowed."""
    path, model = _keys_of(error["loc"])
    key, kind, context = ".".join(path), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        keys = list(model.model_fields)
        hint = suggestion(path[-1], keys) or _elsewhere(path)
        hint = hint or f" (allowed: {', '.join(keys)})"
        return f"{key}: unknown key{hint}"
    if kind == "missing":
        return f"{key}: missing; it is required"
    if kind == "invalid_key" or error["loc"][-1] == "[key]":
        return f"{key or 'keys'}: the key {_short(error['input'])} must be text; put it in quotes"
    if kind == "union_tag_not_found" and isinstance(error["input"], dict):
        return f"{key}.source: missing; it is required"
    if kind == "union_tag_invalid":
        tag = "source" if path[0] == "tasks" else "type"
        value, expected = error["input"][tag], context["expected_tags"]
        meant = _of_plugins(tag, value) or _meant(value, expected)
        return f"{key}.{tag} = {_short(value)}: must be one of {expected}{meant}"
    kind = "dict_type" if kind == "union_tag_not_found" else kind
    shown = context | {"expected": _few(context.get("expected", ""))}
    must = _MUST[kind].format(**shown) if kind in _MUST else error["msg"]
    or_search = (
        ", or the settings of a search" if kind == "float_type" and path[-1] == "ratio" else ""
    )
    meant = _of_plugins(path[-1], error["input"]) if kind == "literal_error" else ""
    meant = meant or _meant(error["input"], context.get("expected", ""))
    return f"{key} = {_short(error['input'])}: {must}{or_search}{meant}"


def _elsewhere(path: list[str]) -> str:
    """Return in words where else a key belongs; empty where nowhere, or in many places.

    path: the keys that lead to it. Where its section has it with another type, that is named alone.
    What single sources of tasks have is for tasks alone.
    """
    titles = [
        title
        for title, model in sections()
        if path[-1] in own_fields(model)
        and not title.startswith("…")
        and (path[0] == "tasks" or ", source" not in title)
    ]
    own = [title for title in titles if title.startswith(f"`{path[0]}.<name>`")]
    found = "; or to ".join(own or titles).replace("The", "the")
    return f" (it belongs to {found})" if 0 < len(own or titles) <= _MOST_PLACES else ""


def _meant_file(path: Path) -> str:
    """Return in words which configurations there are, and what is left of one that is not."""
    near = Path("config", path.name).with_suffix(".yaml")
    if near.is_file():
        return f"; did you mean {near}?"
    others = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
    left = path.parent.parent / "results" / path.stem
    still = f"; of its runs there are still {left} and its lines in dvc.yaml: delete both"
    return f" (there are: {others})" + (still if left.is_dir() else "")


def _few(expected: str) -> str:
    """Return the allowed values, in quotes; of many the first ones, and where the others stand."""
    values = re.findall(r"'[^']+'", expected)
    if len(values) <= _MOST_VALUES:
        return expected
    return f"{', '.join(values[:3])} or another of the {len(values)} in config/README.md"


def _meant(value: Any, expected: str) -> str:
    """Return in words which of the allowed values is likely to be meant.

    expected: the values, in quotes; few of them need no guess, and the result is empty.
    """
    values = re.findall(r"'([^']+)'", expected)
    name = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else value
    return suggestion(str(name), values) if len(values) > 4 else ""


# the keys that may name a plug-in, and of which kind
_PLUGGED: dict[str, plugins.PluginKind] = {
    "source": "source",
    "plugin": "network",
    "loss": "loss",
    "metric": "metric",
    "augmentation": "augmentation",
    "type": "method",
}


def _of_plugins(key: str, value: Any) -> str:
    """Return in words what a file of plug-ins has of this name, but no plug-in of the kind; else
    nothing.

    key: the last one of the value.
    """
    kind = _PLUGGED.get(key)
    found = plugins.hint(kind, str(value)) if kind else None
    return f" ({found})" if found else ""


# what pydantic finds, in the words of people who write configurations
_MUST = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} or fewer entries",
    "value_error": "{error}",
}
_SECTIONS: dict[str, type[Settings]] = {"training": Training, "sequences": Sequence}
# tags of networks and ratios; those of tasks and methods are names in their registries
_TAGS: dict[str, type[Settings]] = {
    "backbone": BackboneNetwork,
    "decoder": DecoderNetwork,
    "perceptron": PerceptronNetwork,
    "plugin": PluginNetwork,
    "packed": LearnedNetwork,
    "search": Search,
    "number": Packing,
}


def _tagged(section: str, tag: str, otherwise: type[Settings]) -> type[Settings]:
    """Return the settings for which a tag of a union stands."""
    with suppress(ValueError):
        if section == "tasks":
            return sources.source(tag)
        if section == "methods":
            return methods.method(tag)
    return _TAGS.get(tag, otherwise)


def _keys_of(location: tuple[int | str, ...]) -> tuple[list[str], type[Settings]]:
    """Return the keys that lead to a fault, and the settings to which the last one belongs.

    location: as pydantic has it, with positions in lists and tags of unions, which are left out.
    """
    path: list[str] = []
    model: type[Settings] = _SECTIONS.get(str(location[0]), Configuration)
    for position, part in enumerate(location):
        # tags stand behind the name of a task, network or method, and behind the key `ratio`
        behind_name = position == 2 and location[0] in ("tasks", "networks", "methods")
        behind_ratio = position == 4 and "ratio" in path
        if behind_name or behind_ratio:
            model = _tagged(str(location[0]), str(part), model)
        elif isinstance(part, str) and part != "[key]":
            path.append(part)
        if position == 2 and location[0] == "sequences" and part == "tasks":
            model = Series
    return path, model


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _names(name: Any, named: Mapping[str, list[str]]) -> list[str]:
    """Return faults of names: letters that folders cannot have everywhere, words that are taken.

    name: of the configuration. named: the names in each section.
    """
    own = [("name", name)] if isinstance(name, str) else []
    others = [(section, one) for section, names in named.items() for one in names]
    faults = [
        f"{section} = {one!r}: names are made of small letters, digits and _"
        for section, one in [*own, *others]
        if not VALID_NAME.fullmatch(one)
    ]
    faults += [
        f"methods.{taken}: this name is taken by a training that methods share"
        for taken in (DENSE, LEARNED)
        if taken in named["methods"]
    ]
    if AUTO in named["tasks"]:
        faults.append(f"tasks.{AUTO}: this name is taken: it stands for the most likely task")
    return faults


def _overrides(configuration: Configuration) -> list[str]:
    """Return faults of the training settings that tasks override."""
    faults = []
    for name, task in configuration.tasks.items():
        try:
            Training.model_validate(configuration.training.model_dump() | task.training)
        except ValidationError as error:
            for detail in error.errors():
                line = _line({**detail, "loc": ("training", *detail["loc"])})
                faults.append(f"tasks.{name}.{line}")
    return faults


def registry() -> dict[str, Any]:
    """Return which architectures exist, and why some cannot be packed.

    `make registry` makes the file; a test keeps it current.
    """
    text = files("acll.networks").joinpath("registry.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _architectures(configuration: Configuration) -> list[str]:
    """Return faults of the parts that networks are built from, and of their weights."""
    known = registry()
    faults = []
    for name, network in configuration.specs.items():
        if isinstance(network, PluginNetwork):
            faults += _plugged(f"networks.{name}", network)
            continue
        for part in ("backbone", "decoder", "encoder"):
            value = getattr(network, part, None)
            if value is not None:
                faults += _part(f"networks.{name}.{part} = {value!r}", part, value, network, known)
        faults += _weights(name, network, known)
    return faults


def _plugged(key: str, network: PluginNetwork) -> list[str]:
    """Return faults of a network that is a plug-in: of its name, and of its options."""
    known = plugins.names("network")
    if network.plugin not in known:
        hint = _of_plugins("plugin", network.plugin) or suggestion(network.plugin, known)
        hint = hint or (_known(known) if known else " (name its file under `plugins`)")
        return [f"{key}.plugin = {network.plugin!r}: there is no such plug-in{hint}"]
    factory = plugins.function_of("network", network.plugin)
    try:
        inspect.signature(factory).bind("classification", 2, network.channels, **network.options)
    except TypeError as error:
        takes = f"{network.plugin!r} takes {plugins.parameters_of(factory)}"
        return [f"{key}.options = {_short(network.options)}: {error}; {takes}"]
    return []


def _part(key: str, part: str, value: str, network: Network, known: dict[str, Any]) -> list[str]:
    """Return faults of one part of a network. key: the beginning of a line about it."""
    if part == "encoder" and value.startswith("tu-"):
        return _timm(key, value.removeprefix("tu-"))
    reasons = known[f"{part}s"]
    if value not in reasons:
        if part == "backbone" and value in plugins.names("network"):
            return [f"{key}: is a plug-in; write `plugin: {value}` in place of `backbone`"]
        meant = value.replace("++", "plusplus")  # as papers write it
        hint = suggestion(meant, list(reasons)) or f" (known: {', '.join(reasons)})"
        return [f"{key}: there is no such {part}{hint}"]
    if reasons[value]:
        return [f"{key}: cannot be packed: {reasons[value]}"]
    if part == "decoder" and getattr(network, "encoder", "") == "resnet_small":
        decoders = known["decoders_of_resnet_small"]
        fitting = [other for other, reason in decoders.items() if reason is None]
        if value not in fitting:
            return [
                f"{key}: does not fit the three scales of resnet_small "
                f"(these do: {', '.join(fitting)})"
            ]
    return []


def _timm(key: str, model: str) -> list[str]:
    """Return a fault where timm has no such model.

    timm itself is asked, since its list is too long to keep; importing it takes seconds.
    """
    import timm

    if timm.is_model(model):
        return []
    return [f"{key}: timm has no such model{suggestion(model, timm.list_models())}"]


def _leads_out(path: Path) -> bool:
    """Return whether a path leads out of the folder that it is to lie below: `~` means home."""
    return path.is_absolute() or ".." in path.parts or path.parts[:1] == ("~",)


def _weights(name: str, network: Network, known: dict[str, Any]) -> list[str]:
    """Return faults of the weights that a network starts from. name: of the network."""
    key = f"networks.{name}.weights = {network.weights!r}"
    if isinstance(network, OF_ONE_WIDTH) or network.weights == "none":
        return []
    if network.weights == "imagenet":
        name = network.backbone if isinstance(network, BackboneNetwork) else network.encoder
        reason = known["without_imagenet"].get(name)
        return [f"{key}: {reason}; use none or a file"] if reason else []
    if not network.weights.endswith(WEIGHT_SUFFIXES):
        endings = ", ".join(WEIGHT_SUFFIXES)
        return [f"{key}: must be none, imagenet or the path of a file of weights ({endings})"]
    if _leads_out(Path(network.weights)):
        return [f"{key}: must lie below data_root, which `DATA=…` can set"]
    return []


def _packed_files(configuration: Configuration) -> list[str]:
    """Return faults of the paths of packed networks."""
    faults = []
    for name, network in configuration.packed.items():
        key = f"networks.{name}.packed = {network.packed!r}"
        if _leads_out(Path(network.packed)):
            faults.append(f"{key}: must lie below data_root, which `DATA=…` can set")
        elif not network.packed.endswith(".safetensors"):
            faults.append(f"{key}: must be the path of a packed network (.safetensors)")
    return faults


def _going_on(configuration: Configuration) -> list[str]:
    """Return why sequences cannot go on from packed networks: their tasks, or the methods."""
    faults = []
    networks: dict[str, None] = {}  # a set that keeps its order
    for name, sequence in configuration.sequences.items():
        before = configuration.tasks_before(sequence.network)
        networks |= {sequence.network: None} if before else {}
        key = f"sequences.{name}.tasks"
        faults += [
            f"{key} = {task!r}: networks.{sequence.network} has learned a task of that name; give "
            "this one another"
            for task in sequence.tasks
            if task in before
        ]
        if len(before) + len(sequence.tasks) > MAX_TASKS:
            faults.append(
                f"{key}: networks.{sequence.network} has learned {len(before)} tasks and can learn "
                f"{MAX_TASKS - len(before)} more"
            )
    can = [name for name in kinds(methods.METHODS) if methods.method(name).goes_on]
    for name, method in configuration.methods.items():
        if networks and not method.goes_on:
            faults.append(
                f"methods.{name}: {method.type} cannot go on from networks."
                f"{listed(list(networks))}: it changes earlier tasks, needs their data, or makes "
                f"networks of its own; {listed(can)} can"
            )
    return faults


def _sequences(configuration: Configuration, tasks: list[str], networks: list[str]) -> list[str]:
    """Return faults of sequences: unknown names, tasks given twice or not for their network.

    tasks, networks: the names that there are; of sections without any nothing is said.
    """
    faults = []
    for name, sequence in configuration.sequences.items():
        key = f"sequences.{name}"
        network = configuration.specs.get(sequence.network)
        if networks and sequence.network not in networks:
            hint = suggestion(sequence.network, networks) or _known(networks)
            faults.append(f"{key}.network = {sequence.network!r}: there is no such network{hint}")
        if len(set(sequence.tasks)) < len(sequence.tasks):
            faults.append(f"{key}.tasks = {sequence.tasks}: a task stands there twice")
        for task in sequence.tasks:
            if tasks and task not in tasks:
                hint = suggestion(task, tasks) or _known(tasks)
                faults.append(f"{key}.tasks = {task!r}: there is no such task{hint}")
            elif network is not None and task in configuration.tasks:
                faults += _fits(key, task, configuration.tasks[task], network)
    return faults


def _growth(configuration: Configuration) -> list[str]:
    """Return why methods cannot make networks wider: the network, or a goal that is never missed.

    A network that no sequence learns is not looked at.
    """
    faults = []
    learned = {line.network for line in configuration.sequences.values()}
    for name, method in configuration.methods.items():
        if not isinstance(method, Packing) or method.grow is None:
            continue
        key = f"methods.{name}.grow"
        if not isinstance(method.ratio, Search) or method.ratio.search == "fixed":
            faults.append(f"{key}: needs a search of the ratio, which says what a task needs")
        elif method.ratio.prefer == "score":
            faults.append(
                f"{key}: has no effect with `prefer: score`, whose goal is what the cap allows"
            )
        elif not method.cap:
            faults.append(f"{key}: has no effect with `cap: false`, under which no task lacks room")
        for other, network in configuration.specs.items():
            reason = why_not_wider(network) if other in learned else None
            if reason is not None:
                faults.append(f"{key}: networks.{other} cannot become wider: {reason}")
    return faults


def _augmentation(configuration: Configuration) -> list[str]:
    """Return faults of augmentation that does not go with a task, or with a network that learns it.

    A task whose own settings of training are faulty is not looked at.
    """
    faults = []
    for name, task in configuration.tasks.items():
        try:
            given = configuration.training_of(name).augmentation
        except ValidationError:
            continue
        own = f"tasks.{name}.training.augmentation"
        if "augmentation" in task.training:
            key, instead = own, ""
        else:
            key, instead = "training.augmentation", f", or set {own}"
        if task.kind == "segmentation":
            faults += [
                f"{key}: {one} mixes the labels of images, and {name} has masks; leave it out"
                f"{instead}"
                for one in MIXING
                if one in given
            ]
        if "colour" in given:
            faults += [
                f"{key}: colour changes hues, of images of 3 channels, and networks.{network} "
                f"takes {channels}; use brightness{instead}"
                for network, channels in _channels(configuration, name).items()
                if channels != 3
            ]
    return faults


def _channels(configuration: Configuration, task: str) -> dict[str, int]:
    """Return the channels of the networks that learn a task, by name. Unknown ones are left out."""
    learning = {line.network for line in configuration.sequences.values() if task in line.tasks}
    networks = configuration.specs.items()
    return {name: network.channels for name, network in networks if name in learning}


def _known(names: Iterable[str]) -> str:
    return f" (there are: {', '.join(names)})"


def _fits(key: str, name: str, task: Task, network: Network) -> list[str]:
    """Return why a network cannot learn a task: its kind, or the size of its images."""
    size = f"tasks.{name}.image_size = {list(task.image_size)}"
    if isinstance(network, PluginNetwork) and network.plugin not in plugins.names("network"):
        return []  # a fault of the network
    if task.kind == "segmentation" and not learns_masks(network):
        return [f"{key}.tasks = {name!r}: a segmentation task needs {_for_masks(network)}"]
    if isinstance(network, PerceptronNetwork):
        if task.image_size == network.image_size:
            return []
        return [f"{size}: must be {list(network.image_size)}, the image_size of its perceptron"]
    if isinstance(network, PluginNetwork):
        return []
    if isinstance(network, BackboneNetwork):
        return _size_faults(size, task, network.backbone)
    if network.encoder not in registry()["encoders"] and not network.encoder.startswith("tu-"):
        return []  # an unknown encoder is a fault of the network
    stride = 8 if network.encoder == "resnet_small" else 32
    if any(side % stride for side in task.image_size):
        fitting = [max(stride, round(side / stride) * stride) for side in task.image_size]
        return [f"{size}: must be multiples of {stride}, such as {fitting}"]
    if stride == 32 and task.kind == "segmentation":
        return _size_faults(size, task, network.decoder)
    return []


def _for_masks(network: Network) -> str:
    """Return in words which network learns masks, where this one does not."""
    if isinstance(network, PluginNetwork):
        return "a network that is marked for it: `@plugin(…, tasks=[…])`, see docs/plugins.md"
    return "a network with a decoder"


def _size_faults(key: str, task: Task, architecture: str) -> list[str]:
    """Return a fault where an architecture takes no images of this size. key: of their size."""
    known = registry()
    smallest, exact = known["smallest"].get(architecture, 1), known["exact"].get(architecture)
    if exact and set(task.image_size) != {exact}:
        return [f"{key}: {architecture} needs exactly {exact}"]
    if min(task.image_size) < smallest:
        return [f"{key}: {architecture} needs {smallest} or more"]
    return []


def _variants(key: str, task: Task) -> list[str]:
    """Return faults of settings that do not go with the kind of the task, or with each other."""
    faults = []
    if task.metric in ALL_METRICS and task.metric not in METRICS[task.kind]:
        faults.append(
            f"{key}.metric = {task.metric!r}: {task.kind} has {', '.join(METRICS[task.kind])}"
        )
    if task.metric == "boundary_f1" and task.tile_overlap is not None:
        faults.append(f"{key}.metric: boundaries cannot be put together from tiles")
    if task.tile_overlap is not None:
        if task.kind == "classification":
            faults.append(f"{key}.tile_overlap: only images with masks can be cut into tiles")
        elif task.tile_overlap > min(task.image_size) // 2:
            faults.append(
                f"{key}.tile_overlap = {task.tile_overlap}: must be half of image_size at most"
            )
        if task.rotate:
            faults.append(f"{key}.rotate: tiles cannot be rotated; leave out tile_overlap")
    if task.permute is not None and task.kind == "segmentation":
        faults.append(
            f"{key}.permute: a segmentation task has no pixels to permute; classification has"
        )
    return faults


def _values(configuration: Configuration) -> list[str]:
    """Return faults of values that the types of single keys cannot tell."""
    faults = []
    for name, task in configuration.tasks.items():
        if task.validation_share + task.test_share > 0.9:
            faults.append(
                f"tasks.{name}.validation_share + test_share: must leave a tenth for training"
            )
        group = getattr(task, "group", None)
        try:
            re.compile(group or "")
        except re.error as error:
            faults.append(f"tasks.{name}.group = {group!r}: not a regular expression: {error}")
        classes = getattr(task, "classes", None)
        if isinstance(classes, list) and len(set(classes)) < len(classes):
            faults.append(f"tasks.{name}.classes = {_short(classes)}: a class stands there twice")
        faults += _variants(f"tasks.{name}", task)
        path = Path(getattr(task, "path", "."))
        if _leads_out(path):
            faults.append(
                f"tasks.{name}.path = {str(path)!r}: must lie below data_root, which `DATA=…` "
                "can set"
            )
    if configuration.orders == "all":
        faults += [
            f"orders = all: sequences.{name} has {len(line.tasks)} tasks and so "
            f"{factorial(len(line.tasks)):,} orders; name a number of them, such as `6 random`"
            for name, line in configuration.sequences.items()
            if len(line.tasks) > MOST_TASKS_IN_ALL_ORDERS
        ]
    random = configuration.orders.removesuffix(" random")
    if random.isdigit() and int(random) > factorial(MOST_TASKS_IN_ALL_ORDERS):
        faults.append(
            f"orders = {configuration.orders}: must be {factorial(MOST_TASKS_IN_ALL_ORDERS)} "
            "or fewer"
        )
    if len(set(configuration.seeds)) < len(configuration.seeds):
        faults.append(f"seeds = {configuration.seeds}: a seed stands there twice")
    return faults + _sampling(configuration) + _without_effect(configuration)


def _sampling(configuration: Configuration) -> list[str]:
    """Return faults of images that are to be drawn by class, where an image has several."""
    faults = []
    for name, task in configuration.tasks.items():
        own = "sampling" in task.training
        asked = task.training["sampling"] if own else configuration.training.sampling
        if task.kind != "segmentation" or asked != "balanced":
            continue
        key = f"tasks.{name}.training.sampling" if own else "training.sampling"
        leave = "" if own else f", and in tasks.{name} `training: {{sampling: shuffled}}`"
        faults.append(
            f"{key} = 'balanced': an image of {name} has many classes; use `class_weights: "
            f"balanced` or `loss: dice`{leave}"
        )
    return faults


def _paths(configuration: Configuration) -> list[str]:
    """Return faults of names and chains of tasks that are too long for a file system.

    Folders nest as prefixes do.
    """
    faults = []
    for run in tree.runs(configuration):
        fitting = len(run.tasks)
        for stage in range(len(run.tasks), 0, -1):
            nodes = run.nodes(stage)
            long = [part for node in nodes for part in node.prefix if len(part) > LONGEST_NAME]
            if long:
                faults.append(
                    f"sequences.{run.sequence}: the folder {long[0][:40]}… would have a name "
                    f"of {len(long[0])} letters, more than {LONGEST_NAME}; give shorter names to "
                    "its tasks"
                )
            if any(_longest_path(node) > LONGEST_PATH for node in nodes):
                fitting = stage - 1
        if fitting < len(run.tasks):
            faults.append(
                f"sequences.{run.sequence}: a chain of {len(run.tasks)} tasks makes paths that "
                f"are longer than the system allows; {fitting} of these tasks fit, or more with "
                "shorter names"
            )
    return list(dict.fromkeys(faults))


def _longest_path(node: Node) -> int:
    """Return the length of the longest path that a node needs, below the folder of the results.

    It is that of Snakemake's record of an output: the output's path in base 64, in folders of 255
    letters.
    """
    output = len(f"{node.folder}/examples.safetensors")
    encoded = -(-output // 3) * 4
    return len(".snakemake/incomplete/") + encoded + 2 * (encoded // 254)


def _without_effect(configuration: Configuration) -> list[str]:
    """Return faults of settings that are given and make no difference."""
    faults = []
    for name, method in configuration.methods.items():
        if isinstance(method, Packing) and isinstance(method.ratio, Search):
            if method.ratio.search == "fixed":
                others = sorted(method.ratio.model_fields_set - {"search", "ratio"})
                faults += [
                    f"methods.{name}.ratio.{key}: has no effect with `search: fixed`"
                    for key in others
                ]
        elif isinstance(method, Packing):
            of_a_cap = sorted(method.model_fields_set & {"expected_tasks", "tail_share", "cap"})
            faults += [
                f"methods.{name}.{key}: has no effect on a ratio that is a number; for one "
                f"with a cap write `ratio: {{search: fixed, ratio: {method.ratio:g}}}`"
                for key in of_a_cap
            ]
    return faults
