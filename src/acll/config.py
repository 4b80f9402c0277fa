"""The typed configuration: the one truth for schema, defaults and documentation.

`load(path)` and `parse(mapping)` return a `Configuration` or raise `ConfigurationError`, whose message has one line
for each fault: key, value and what is allowed. Nothing here imports torch: a configuration is checked before any job.
"""

import difflib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from acll.errors import UserError

NAME = re.compile(r"[a-z0-9_]+")
SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
DENSE = "dense"  # the folder of first-task training, shared by all methods; so no method may have this name

Kind = Literal["classification", "segmentation"]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]


def _sides(value: Any) -> Any:
    """Height and width; a number is both."""
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list | tuple) or len(sides) != 2 or any(type(one) is not int or one < 1 for one in sides):
        raise ValueError("must be a number of pixels above 0, or two: [height, width]")
    return tuple(sides)


Size = Annotated[tuple[int, int], BeforeValidator(_sides)]


class ConfigurationError(UserError):
    """The configuration cannot be run; the message has one line for each fault."""


class Settings(BaseModel):
    """What all parts of the configuration have in common: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --------------------------------------------------------------------------------------------------------------------
# tasks


class Task(Settings):
    """Settings that every task has, whatever its source."""

    image_size: Size = Field(description="height and width in pixels to which images are resized; a number for both")
    validation_share: Share = Field(0.15, description="share cut from `train` for validation where there is no `val`")
    test_share: Share = Field(0.2, description="share cut from `train` for the test where there is no `test`")
    split_seed: int = Field(0, ge=0, description="seed of these cuts; the seeds of the runs do not change them")
    training: dict[str, Any] = Field({}, description="keys of `training` that this task overrides")


class Digits(Task):
    """Handwritten digits, 1,797 real grey images of 8x8 pixels that come with scikit-learn."""

    source: Literal["digits"] = Field(description="`digits`")
    kind: Literal["classification"] = Field("classification", description="always classification")


class Generated(Task):
    """Images made by the package from a seed, of adjustable difficulty; no files are needed."""

    source: Literal["generated"] = Field(description="`generated`")
    kind: Kind = Field(description="`classification` (textures) or `segmentation` (shapes on a textured ground)")
    classes: int = Field(ge=2, le=20, description="number of classes; for segmentation the ground is one of them")
    samples: int = Field(ge=20, description="number of images before the splits are cut")
    difficulty: float = Field(ge=0, le=1, description="0: classes far apart, no noise; 1: alike and noisy")
    seed: int = Field(0, ge=0, description="seed of the images")


class ImageFolder(Task):
    """Images in `{train,val,test}/<class>/*`; the folder names are the classes."""

    source: Literal["image_folder"] = Field(description="`image_folder`")
    kind: Literal["classification"] = Field("classification", description="always classification")
    path: str = Field(description="the folder, below `data_root`")
    group: str | None = Field(None, description="regular expression; files whose match is equal stay in one split")


class MaskFolder(Task):
    """Images in `{train,val,test}/images/*` and class indices in `{train,val,test}/masks/*.png`; 255 means ignore."""

    source: Literal["mask_folder"] = Field(description="`mask_folder`")
    kind: Literal["segmentation"] = Field("segmentation", description="always segmentation")
    path: str = Field(description="the folder, below `data_root`")
    classes: list[str] = Field(min_length=2, max_length=255, description="names of the classes, in order of index")
    group: str | None = Field(None, description="regular expression; files whose match is equal stay in one split")


AnyTask = Annotated[Digits | Generated | ImageFolder | MaskFolder, Discriminator("source")]


# --------------------------------------------------------------------------------------------------------------------
# networks


class BackboneNetwork(Settings):
    """A classification network."""

    backbone: str = Field(description="a classification model of torchvision, or `resnet_small` for small images")
    weights: str = Field("none", description="`none`, `imagenet`, or a `.safetensors` file with a state dict")


class DecoderNetwork(Settings):
    """An encoder with a segmentation decoder; classification tasks use its encoder and a pooled head."""

    decoder: str = Field(description="a decoder of segmentation-models-pytorch, in small letters")
    encoder: str = Field(description="one of its encoders (`tu-…`: any of timm), or `resnet_small` for small images")
    weights: str = Field("none", description="of the encoder: `none`, `imagenet`, or a `.safetensors` file")


def _network_kind(value: Any) -> str:
    keyed = isinstance(value, dict) and ("decoder" in value or "encoder" in value)
    return "decoder" if keyed or isinstance(value, DecoderNetwork) else "backbone"


Network = Annotated[
    Annotated[BackboneNetwork, Tag("backbone")] | Annotated[DecoderNetwork, Tag("decoder")],
    Discriminator(_network_kind),
]


class Sequence(Settings):
    """A network and the tasks that it learns, in order."""

    network: str = Field(description="name of a network")
    tasks: list[str] = Field(min_length=1, max_length=255, description="names of tasks, in the order of learning")


# --------------------------------------------------------------------------------------------------------------------
# methods


class Search(Settings):
    """How the release ratio of a task is searched."""

    search: Literal["tpe"] = Field(description="`tpe`: hyperopt's tree of Parzen estimators")
    trials: int = Field(12, ge=2, description="trials, without the reference and the confirmations")
    startup: int = Field(4, ge=1, description="how many of them are drawn at random first")
    trial_share: float = Field(
        0.25, gt=0, le=1, description="length of each trial and of the reference as a share of `retrain_epochs`"
    )
    lower: Share = Field(0.005, description="smallest kept share that is tried")
    z: float = Field(1.0, gt=0, description="tolerance in standard errors of the reference score")
    min_tolerance: float = Field(0.005, gt=0, lt=1, description="the tolerance is at least this")
    max_tolerance: float = Field(0.03, gt=0, lt=1, description="and at most this")
    confirmations: int = Field(3, ge=1, description="kept shares that are tried with full retraining at most")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_tolerance > self.max_tolerance:
            raise ValueError(f"min_tolerance must not be above max_tolerance ({self.max_tolerance})")
        return self


def _ratio_kind(value: Any) -> str:
    return "search" if isinstance(value, dict | Search) else "number"


Ratio = Annotated[
    Annotated[float, Field(ge=0, lt=1), Tag("number")] | Annotated[Search, Tag("search")],
    Discriminator(_ratio_kind),
]


class Packing(Settings):
    """Train, release the smallest weights, retrain and freeze the rest: PackNet, with a fixed or a searched ratio."""

    type: Literal["packing"] = Field("packing", description="`packing`, which may be left out")
    ratio: Ratio = Field(
        description="share of what the task trained that it releases: a number in [0, 1), or the settings of a search"
    )
    scope: Literal["layer", "global"] = Field("layer", description="smallest within each `layer`, or over all of them")
    free_weights: Literal["fresh", "zero", "pretrained"] = Field(
        "fresh", description="where free weights start for later tasks: newly drawn, 0, or the values of `weights`"
    )
    expected_tasks: Positive = Field(
        5, description="n: with a search, task t < n may own 1/(n-t+1) of the weights free in its network"
    )
    tail_share: Share = Field(0.5, description="with a search, the share of the free weights from task n on")
    cap: bool = Field(True, description="whether these bounds hold; without them early tasks may take everything")


class FineTuning(Settings):
    """Train everything on each task in turn; only heads are private. Shows what forgetting is."""

    type: Literal["finetuning"] = Field(description="`finetuning`")


def _method_type(value: Any) -> str:
    return str(value.get("type", "packing") if isinstance(value, dict) else getattr(value, "type", "packing"))


Method = Annotated[
    Annotated[Packing, Tag("packing")] | Annotated[FineTuning, Tag("finetuning")],
    Discriminator(_method_type),
]

Augmentation = Literal["flip", "vertical_flip", "shift", "brightness"]


class Training(Settings):
    """How a network is trained. Any of these can be overridden in a task."""

    epochs: Positive = Field(10, description="epochs of training; the best on the validation split is kept")
    retrain_epochs: Positive = Field(5, description="epochs of retraining after release; the best is kept")
    batch_size: int = Field(32, ge=2, description="images in a batch")
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="`sgd` (with momentum) or `adamw`")
    learning_rate: float = Field(0.002, gt=0, description="at the start of training")
    retrain_learning_rate: float = Field(0.001, gt=0, description="at the start of retraining and of each trial")
    momentum: float = Field(0.9, ge=0, lt=1, description="of `sgd`")
    weight_decay: float = Field(1e-4, ge=0, description="only ever applied to weights that are being trained")
    schedule: Literal["cosine", "step"] = Field(
        "cosine", description="`cosine` to 0, or `step`: a tenth at 1/2 and 3/4"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of the cross-entropy")
    augmentation: list[Augmentation] = Field([], description="random `flip`, `vertical_flip`, `shift`, `brightness`")
    loss: Literal["cross_entropy", "dice", "cross_entropy_dice"] = Field(
        "cross_entropy", description="for segmentation; classification always uses cross-entropy"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="`balanced`: classes weigh by the inverse root of their frequency in the training split"
    )
    mixed_precision: bool = Field(False, description="bfloat16 arithmetic on a GPU; no effect on a CPU")


class Configuration(Settings):
    """All that one run of the pipeline makes, under `results/<name>/`."""

    name: str = Field(description="name of the configuration, equal to the name of its file")
    data_root: str = Field("data", description="folder of raw data, relative to the repository; `DATA=…` overrides it")
    threads: Positive = Field(1, description="threads of a job; results depend on it bit for bit, so it is set here")
    tasks: dict[str, AnyTask] = Field(min_length=1, description="the tasks, by name")
    networks: dict[str, Network] = Field(min_length=1, description="the networks, by name")
    sequences: dict[str, Sequence] = Field(min_length=1, description="which network learns which tasks in which order")
    methods: dict[str, Method] = Field(min_length=1, description="the methods that are compared, by name")
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1, description="one run for each")
    training: Training = Field(Training(), description="how networks are trained")

    def training_of(self, task: str) -> Training:
        """The training settings of a task, its own overrides included."""
        return Training.model_validate(self.training.model_dump() | self.tasks[task].training)


# --------------------------------------------------------------------------------------------------------------------
# reading and checking


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys, of which PyYAML would silently keep the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} stands there twice", key.start_mark)
            seen.add(str(key.value))
        return node


def load(path: Path) -> Configuration:
    """Read and check a configuration file. Raises ConfigurationError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
        raise ConfigurationError(f"{path}: there is no such file (there are: {others})") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not text in UTF-8: {error}") from None
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigurationError(f"{path}: not valid YAML: {line}{error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{path}: empty, or not a mapping of keys to values")
    try:
        configuration = parse(raw)
    except ConfigurationError as error:
        raise ConfigurationError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    if configuration.name != path.stem:
        raise ConfigurationError(f"{path}: name = {configuration.name!r}: must be {path.stem!r}, as the file is called")
    return configuration


def parse(raw: dict[str, Any]) -> Configuration:
    """Check a configuration given as plain data. Raises ConfigurationError."""
    raw = _numbers(raw)
    try:
        configuration = Configuration.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError("\n".join(dict.fromkeys(map(_line, error.errors())))) from None
    faults = [*_names(configuration), *_overrides(configuration), *_architectures(configuration)]
    faults += [*_sequences(configuration), *_values(configuration)]
    if faults:
        raise ConfigurationError("\n".join(dict.fromkeys(faults)))
    return configuration


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; people mean a number."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and SCIENTIFIC.fullmatch(value) else value


def _line(error: ErrorDetails) -> str:
    """One line for a fault that pydantic found: key, value, what is allowed."""
    path, model = _place(error["loc"])
    key, kind, context = ".".join(path), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        keys = list(model.model_fields)
        hint = suggestion(path[-1], keys) or f" (allowed: {', '.join(keys)})"
        return f"{key}: unknown key{hint}"
    if kind == "missing":
        return f"{key}: missing; it is required"
    if kind == "invalid_key" or error["loc"][-1] == "[key]":
        return f"{key or 'keys'}: the key {_short(error['input'])} must be text; put it in quotes"
    if kind == "union_tag_not_found":
        return f"{key}.source: missing; it is required"
    if kind == "union_tag_invalid":
        tag = "source" if path[0] == "tasks" else "type"
        return f"{key}.{tag} = {_short(error['input'][tag])}: must be one of {context['expected_tags']}"
    must = _MUST[kind].format(**context) if kind in _MUST else error["msg"]
    or_search = ", or the settings of a search" if kind == "float_type" and path[-1] == "ratio" else ""
    return f"{key} = {_short(error['input'])}: {must}{or_search}"


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
_MODELS: dict[str, type[Settings]] = {
    "training": Training,
    "sequences": Sequence,
    "digits": Digits,
    "generated": Generated,
    "image_folder": ImageFolder,
    "mask_folder": MaskFolder,
    "backbone": BackboneNetwork,
    "decoder": DecoderNetwork,
    "packing": Packing,
    "finetuning": FineTuning,
    "search": Search,
    "number": Packing,
}


def _place(location: tuple[int | str, ...]) -> tuple[list[str], type[Settings]]:
    """The keys that lead to a fault, without positions in lists, and the settings in which the last one stands."""
    path: list[str] = []
    model: type[Settings] = _MODELS.get(str(location[0]), Configuration)
    for position, part in enumerate(location):
        # tags of unions stand behind the name of a task, network or method, and behind its ratio; they are no keys
        if (position == 2 and location[0] in ("tasks", "networks", "methods")) or (position == 4 and "ratio" in path):
            model = _MODELS.get(str(part), model)
        elif isinstance(part, str) and part != "[key]":
            path.append(part)
    return path, model


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def suggestion(name: str, known: list[str]) -> str:
    """` (did you mean …?)`, or nothing where no known name is close."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _names(configuration: Configuration) -> list[str]:
    named = [("name", configuration.name)]
    for section in ("tasks", "networks", "sequences", "methods"):
        named += [(section, name) for name in getattr(configuration, section)]
    faults = [
        f"{section} = {name!r}: names are made of small letters, digits and _"
        for section, name in named
        if not NAME.fullmatch(name)
    ]
    if DENSE in configuration.methods:
        faults.append(f"methods.{DENSE}: this name is taken by the training that all methods share")
    return faults


def _overrides(configuration: Configuration) -> list[str]:
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
    """Which architectures exist, and why some cannot be packed; made by `make registry`, kept current by a test."""
    text = files("acll.networks").joinpath("registry.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _architectures(configuration: Configuration) -> list[str]:
    known = registry()
    faults = []
    for name, network in configuration.networks.items():
        for key, section in (("backbone", "backbones"), ("decoder", "decoders"), ("encoder", "encoders")):
            value = getattr(network, key, None)
            if value is None or (key == "encoder" and value.startswith("tu-")):
                continue  # an encoder of timm is looked up when the network is built: the list is long and changes
            if value not in known[section]:
                hint = suggestion(value, list(known[section])) or f" (known: {', '.join(known[section])})"
                faults.append(f"networks.{name}.{key} = {value!r}: there is no such {key}{hint}")
            elif known[section][value]:
                faults.append(f"networks.{name}.{key} = {value!r}: cannot be packed: {known[section][value]}")
            elif key == "decoder" and getattr(network, "encoder", "") == "resnet_small":
                fitting = [other for other, reason in known["decoders_of_resnet_small"].items() if reason is None]
                if value not in fitting:
                    faults.append(
                        f"networks.{name}.{key} = {value!r}: does not fit the three scales of resnet_small "
                        f"(these do: {', '.join(fitting)})"
                    )
        faults += _weights(name, network, known)
    return faults


def _weights(name: str, network: Network, known: dict[str, Any]) -> list[str]:
    key = f"networks.{name}.weights = {network.weights!r}"
    if network.weights == "none":
        return []
    if network.weights == "imagenet":
        small = "resnet_small" in (getattr(network, "backbone", ""), getattr(network, "encoder", ""))
        return [f"{key}: resnet_small has no ImageNet weights; use none or a file"] if small else []
    if not network.weights.endswith(".safetensors"):
        return [f"{key}: must be none, imagenet or the path of a .safetensors file"]
    path = Path(network.weights).expanduser()
    if not path.is_absolute():
        return [f"{key}: the path of a file of weights must be absolute (it may begin with ~)"]
    if not path.is_file():
        return [f"{key}: there is no such file"]
    return []


def _sequences(configuration: Configuration) -> list[str]:
    faults = []
    for name, sequence in configuration.sequences.items():
        key = f"sequences.{name}"
        network = configuration.networks.get(sequence.network)
        if network is None:
            hint = suggestion(sequence.network, list(configuration.networks)) or _known(configuration.networks)
            faults.append(f"{key}.network = {sequence.network!r}: there is no such network{hint}")
        if len(set(sequence.tasks)) < len(sequence.tasks):
            faults.append(f"{key}.tasks = {sequence.tasks}: a task stands there twice")
        for task in sequence.tasks:
            if task not in configuration.tasks:
                hint = suggestion(task, list(configuration.tasks)) or _known(configuration.tasks)
                faults.append(f"{key}.tasks = {task!r}: there is no such task{hint}")
            elif network is not None:
                faults += _fits(key, task, configuration.tasks[task], network)
    return faults


def _known(names: dict[str, Any]) -> str:
    return f" (there are: {', '.join(names)})"


def _fits(key: str, name: str, task: AnyTask, network: Network) -> list[str]:
    """Whether the network can learn the task: its kind, and the size of its images."""
    size = f"tasks.{name}.image_size = {list(task.image_size)}"
    if isinstance(network, BackboneNetwork):
        if task.kind == "segmentation":
            return [f"{key}.tasks = {name!r}: a segmentation task needs a network with a decoder"]
        return _size_faults(size, task, network.backbone)
    if network.encoder not in registry()["encoders"] and not network.encoder.startswith("tu-"):
        return []  # a fault of its own
    stride = 8 if network.encoder == "resnet_small" else 32
    if any(side % stride for side in task.image_size):
        fitting = [max(stride, round(side / stride) * stride) for side in task.image_size]
        return [f"{size}: must be multiples of {stride}, such as {fitting}"]
    return _size_faults(size, task, network.decoder) if stride == 32 and task.kind == "segmentation" else []


def _size_faults(key: str, task: AnyTask, architecture: str) -> list[str]:
    """Whether images are as large as the architecture needs, or of just the size that it is made for."""
    known = registry()
    smallest, exact = known["smallest"].get(architecture, 1), known["exact"].get(architecture)
    if exact and set(task.image_size) != {exact}:
        return [f"{key}: {architecture} needs exactly {exact}"]
    return [f"{key}: {architecture} needs {smallest} or more"] if min(task.image_size) < smallest else []


def _values(configuration: Configuration) -> list[str]:
    faults = []
    for name, task in configuration.tasks.items():
        if task.validation_share + task.test_share > 0.9:
            faults.append(f"tasks.{name}.validation_share + test_share: must leave a tenth for training")
        group = getattr(task, "group", None)
        try:
            re.compile(group or "")
        except re.error as error:
            faults.append(f"tasks.{name}.group = {group!r}: not a regular expression: {error}")
        classes = getattr(task, "classes", None)
        if isinstance(classes, list) and len(set(classes)) < len(classes):
            faults.append(f"tasks.{name}.classes = {_short(classes)}: a class stands there twice")
        path = Path(getattr(task, "path", "."))
        if path.is_absolute() or ".." in path.parts:
            faults.append(f"tasks.{name}.path = {str(path)!r}: must lie below data_root, which `DATA=…` can set")
    if len(set(configuration.seeds)) < len(configuration.seeds):
        faults.append(f"seeds = {configuration.seeds}: a seed stands there twice")
    return faults
