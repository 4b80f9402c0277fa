"""The types of all settings: what a configuration is made of, with defaults and documentation.

Steps import this module and not the checks in `acll.config`, so that another message reruns nothing.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

DENSE = "dense"  # the folder of first-task training, shared by all methods; so no method may have this name

Kind = Literal["classification", "segmentation"]
Scope = Literal["layer", "global", "channel"]
Strategy = Literal["tpe", "anneal", "random", "grid", "decay", "fixed"]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Width = Annotated[int, Field(gt=0, le=2**20)]
Count = Annotated[int, Field(ge=2, le=255)]
MOST_BANDS = 1000  # of an image
MOST_PIXELS = 2**24  # of an image that goes through a network whole
MOST_VALUES = 2**27  # of one in all its channels
MOST_TEXT = 1000  # characters of a name


def _sides(value: Any) -> Any:
    """Height and width; a number is both."""
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list | tuple) or len(sides) != 2 or any(type(one) is not int or one < 1 for one in sides):
        raise ValueError("must be a number of pixels above 0, or two: [height, width]")
    refuse_large((sides[0], sides[1]))
    return tuple(sides)


def refuse_large(sides: tuple[int, int]) -> None:
    """Raise ValueError where images of this height and width would fit into no memory, or are none."""
    if min(sides) < 1 or sides[0] * sides[1] > MOST_PIXELS:
        raise ValueError(f"{list(sides)}: must be {MOST_PIXELS:,} pixels in all at most, and one at least")


def refuse_odd_text(text: str) -> None:
    """Raise ValueError for text that is too long for a name, or has line breaks, terminal escapes, changes of direction
    or bytes that are no text."""
    if len(text) > MOST_TEXT:
        raise ValueError(f"{ascii(text)[:50]}… has {len(text):,} characters, more than {MOST_TEXT:,}")
    if re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text):
        raise ValueError(f"{ascii(text)[:50]} has control characters")


def _part(value: list[int]) -> list[int]:
    """Which part of how many."""
    if len(value) != 2 or not 1 <= value[0] <= value[1]:
        raise ValueError("must be two numbers, [k, n] with 1 ≤ k ≤ n")
    return value


def _orders(value: str) -> str:
    if not re.fullmatch(r"given|all|[1-9][0-9]* random", value):
        raise ValueError("must be `given`, `all`, or a number of random orders, such as `3 random`")
    return value


Orders = Annotated[str, AfterValidator(_orders)]
Size = Annotated[tuple[int, int], BeforeValidator(_sides)]
Part = Annotated[list[int], AfterValidator(_part)]
Names = Annotated[list[str], Field(min_length=2, max_length=255)]
TorchvisionName = Literal[
    "MNIST", "FashionMNIST", "KMNIST", "EMNIST", "SVHN", "CIFAR10", "CIFAR100", "Flowers102", "StanfordCars",
    "FGVCAircraft", "Food101", "DTD", "GTSRB", "EuroSAT", "OxfordIIITPet", "VOCSegmentation", "Cityscapes",
]  # fmt: skip


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
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="files that cannot be used: `stop`, or `skip` them and count them in the result"
    )
    duplicates: Literal["warn", "stop", "skip"] = Field(
        "warn", description="copies across splits: `warn`, `stop`, or `skip` those that are not in the test split"
    )
    tile_overlap: int | None = Field(
        None, ge=0, description="segmentation: cut images into tiles of `image_size`, overlapping by so many pixels, "
        "half of it at most, instead of resizing them; scores are those of the whole images"
    )  # fmt: skip
    part: Part | None = Field(
        None, description="[k, n]: only the k-th of n parts of the classes, in their order; other pixels are ignored"
    )
    train_samples: int | None = Field(None, ge=2, description="use so many samples of the training split only")
    noise: float = Field(0.0, ge=0, le=1, description="deviation of noise added to pixels, 1 being white; per image")
    rotate: float = Field(0.0, description="degrees by which images are rotated, against the clock")
    permute: int | None = Field(None, ge=0, description="classification: seed of one order in which all pixels are put")
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


class RawData(Task):
    """Settings of every task whose raw data lie in files."""

    path: str = Field(description="the folder, or a .zip or .tar archive of it, below `data_root`")
    group: str | None = Field(None, description="regular expression; files whose match is equal stay in one split")


class ImageFolder(RawData):
    """Images in `{train,val,test}/<class>/*`; the folder names are the classes."""

    source: Literal["image_folder"] = Field(description="`image_folder`")
    kind: Literal["classification"] = Field("classification", description="always classification")


class MaskFolder(RawData):
    """Images in `{train,val,test}/images/*` and masks of class indices (grey levels, or of a palette) in
    `{train,val,test}/masks/*`; 255 means ignore."""

    source: Literal["mask_folder"] = Field(description="`mask_folder`")
    kind: Literal["segmentation"] = Field("segmentation", description="always segmentation")
    classes: Names = Field(description="names of the classes, in order of index")


class Table(RawData):
    """A table with a row for each image: columns `path`, `label` (for segmentation `mask`), and `split`, which may be
    absent. Paths are relative to the table."""

    source: Literal["table"] = Field(description="`table`")
    kind: Kind = Field("classification", description="`classification` or `segmentation`")
    path: str = Field(description="the table, a .csv or .parquet file below `data_root`")
    classes: Names | None = Field(
        None, description="segmentation: names of the classes, in order of index; else those of the column `label`"
    )

    @model_validator(mode="after")
    def _classes_of_masks(self) -> Self:
        if self.kind == "segmentation" and self.classes is None:
            raise ValueError("segmentation needs `classes`, in order of index")
        return self


class CocoSplit(Settings):
    """Where a split of a task of source `coco` lies, below its `path`."""

    images: str = Field(description="the folder of the images")
    annotations: str = Field(description="the .json file of the annotations")


class Coco(RawData):
    """Annotations in COCO's format (polygons or run lengths), drawn as masks: 0 is the background, smaller objects lie
    upon larger ones, crowds are ignored."""

    source: Literal["coco"] = Field(description="`coco`")
    kind: Literal["segmentation"] = Field("segmentation", description="always segmentation")
    classes: Names | None = Field(
        None, description="the categories to use, in this order; else all in the file's order"
    )
    train: CocoSplit = Field(description="`images` and `annotations` of the training split")
    val: CocoSplit | None = Field(None, description="of the validation split; else it is cut")
    test: CocoSplit | None = Field(None, description="of the test split; else it is cut")


class Cub200(RawData):
    """CUB-200-2011 (Wah et al. 2011), 200 kinds of birds, with its own split into training and test."""

    source: Literal["cub200"] = Field(description="`cub200`")
    kind: Literal["classification"] = Field("classification", description="always classification")
    path: str = Field("CUB_200_2011.tgz", description="the archive as it is published, or the folder that is in it")


class Torchvision(Task):
    """A dataset of torchvision, by name, with its own splits; `make download` fetches and verifies what is missing."""

    source: Literal["torchvision"] = Field(description="`torchvision`")
    dataset: TorchvisionName = Field(description="its class in `torchvision.datasets`")
    kind: Kind = Field(
        "classification",
        description="`segmentation` for OxfordIIITPet (pet or background), VOCSegmentation, Cityscapes",
    )
    path: str = Field(description="the folder below `data_root` that torchvision calls `root`")
    group: str | None = Field(None, description="regular expression; samples whose match is equal stay in one split")

    @model_validator(mode="after")
    def _kind_of_dataset(self) -> Self:
        kinds = ("classification", "segmentation") if self.dataset == "OxfordIIITPet" else (
            ("segmentation",) if self.dataset in ("VOCSegmentation", "Cityscapes") else ("classification",)
        )  # fmt: skip
        if self.kind not in kinds:
            raise ValueError(f"{self.dataset} has kind {' or '.join(kinds)}, not {self.kind}")
        return self


AnyTask = Annotated[
    Digits | Generated | ImageFolder | MaskFolder | Table | Coco | Cub200 | Torchvision, Discriminator("source")
]


# --------------------------------------------------------------------------------------------------------------------
# networks

CHANNELS = "channels (bands) of its images; grey images are repeated to fill them"
Channels = Annotated[int, Field(ge=1, le=MOST_BANDS)]


class BackboneNetwork(Settings):
    """A classification network."""

    backbone: str = Field(
        description="a classification model of torchvision, or for small images `resnet_small`, `lenet`, `conv_small`"
    )
    weights: str = Field("none", description="`none`, `imagenet`, or a `.safetensors` file below `data_root`")
    channels: Channels = Field(3, description=CHANNELS)


class DecoderNetwork(Settings):
    """An encoder with a segmentation decoder; classification tasks use its encoder and a pooled head."""

    decoder: str = Field(description="a decoder of segmentation-models-pytorch, in small letters")
    encoder: str = Field(description="one of its encoders (`tu-…`: any of timm), or `resnet_small` for small images")
    weights: str = Field(
        "none", description="of the encoder: `none`, `imagenet`, or a `.safetensors` file below `data_root`"
    )
    channels: Channels = Field(3, description=CHANNELS)


class PerceptronNetwork(Settings):
    """A multilayer perceptron with ReLU, for classification of images of one size."""

    hidden: list[Width] = Field(
        min_length=1, max_length=100, description="widths of the hidden layers, from the input on"
    )
    image_size: Size = Field(description="height and width in pixels of its images, equal to that of its tasks")
    weights: Literal["none"] = Field("none", description="always `none`")
    channels: Channels = Field(1, description=CHANNELS)


def _network_kind(value: Any) -> str:
    if isinstance(value, PerceptronNetwork) or (isinstance(value, dict) and "hidden" in value):
        return "perceptron"
    keyed = isinstance(value, dict) and ("decoder" in value or "encoder" in value)
    return "decoder" if keyed or isinstance(value, DecoderNetwork) else "backbone"


Network = Annotated[
    Annotated[BackboneNetwork, Tag("backbone")]
    | Annotated[DecoderNetwork, Tag("decoder")]
    | Annotated[PerceptronNetwork, Tag("perceptron")],
    Discriminator(_network_kind),
]


class Sequence(Settings):
    """A network and the tasks that it learns, in order."""

    network: str = Field(description="name of a network")
    tasks: list[str] = Field(
        min_length=1, max_length=255, description="names of tasks, in the order of learning; or a series, see below"
    )


def _in_name(value: float) -> str:
    return f"{value:g}".replace(".", "_").replace("-", "minus_").replace("+", "")


class Series(Settings):
    """A benchmark of the field in one line: in place of a sequence's `tasks`, tasks that are made from one of them.
    Besides `of` it has exactly one key. The tasks are called by it: `{of: mnist, permuted: 10}` is `mnist_permuted_1`
    to `mnist_permuted_10`, `{of: mnist, noise: [0, 0.2]}` is `mnist_noise_0` and `mnist_noise_0_2`."""

    of: str = Field(description="name of the task that they are made from")
    permuted: Count | None = Field(None, description="so many tasks, in each the pixels in a random order of its own")
    split: Count | None = Field(None, description="so many tasks, each with a part of the classes")
    rotated: list[float] | None = Field(None, min_length=2, description="a task for each angle, in degrees")
    noise: list[float] | None = Field(None, min_length=2, description="a task for each deviation of noise")
    train_samples: list[int] | None = Field(
        None, min_length=2, description="a task for each number of training samples"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [key for key in type(self).model_fields if key != "of" and getattr(self, key) is not None]
        if len(given) != 1:
            kinds = ", ".join(key for key in type(self).model_fields if key != "of")
            raise ValueError(f"must have `of` and exactly one of {kinds}")
        return self

    def variants(self) -> dict[str, dict[str, Any]]:
        """For each task, by its name, the settings in which it differs from the one that it is made from."""
        if self.permuted is not None:
            return {f"{self.of}_permuted_{number}": {"permute": number} for number in range(1, self.permuted + 1)}
        if self.split is not None:
            numbers = range(1, self.split + 1)
            return {f"{self.of}_split_{number}_of_{self.split}": {"part": [number, self.split]} for number in numbers}
        for name, key in (("rotated", "rotate"), ("noise", "noise"), ("train_samples", "train_samples")):
            values = getattr(self, name)
            if values is not None:
                return {f"{self.of}_{name}_{_in_name(value)}": {key: value} for value in values}
        raise AssertionError  # exactly one was given


# --------------------------------------------------------------------------------------------------------------------
# methods


class Search(Settings):
    """How the release ratio of a task is searched; docs/search.md says what happens."""

    search: Strategy = Field(
        description="`tpe`, `anneal`, `random`: hyperopt's; `grid`: an ascending sweep of kept shares; `decay`: a "
        "ratio of 0.9 that shrinks until the score holds; `fixed`: no search, the same `ratio` for every task"
    )
    budget: float = Field(
        0.75, gt=0, description="what the search may cost, in units of the task's dense training; a reference, four "
        "brief trials, and retrainings until one holds, are made whatever it is"
    )  # fmt: skip
    space: Literal["network", "groups"] = Field(
        "network", description="one ratio for the whole network, or one for each of up to six `groups` of its layers"
    )
    lower: Share = Field(0.005, description="smallest kept share that is tried")
    z: float = Field(1.0, gt=0, description="tolerance in standard errors of the reference score")
    min_tolerance: float = Field(0.0075, gt=0, lt=1, description="the tolerance is at least this")
    max_tolerance: float = Field(0.03, gt=0, lt=1, description="and at most this")
    ratio: float | None = Field(None, ge=0, lt=1, description="of `fixed`: the ratio; the cap may demand a larger one")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_tolerance > self.max_tolerance:
            raise ValueError(f"min_tolerance must not be above max_tolerance ({self.max_tolerance})")
        if (self.search == "fixed") != (self.ratio is not None):
            raise ValueError("`search: fixed` needs a `ratio`, and no other strategy takes one")
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
    scope: Scope = Field(
        "global",
        description="release the smallest of all weights; with `layer` the same share of each layer, as PackNet; with "
        "`channel` whole output channels, the smallest first for the layer that they are of, and with them the weights "
        "that read no other",
    )
    free_weights: Literal["fresh", "zero", "pretrained"] = Field(
        "fresh", description="where free weights start for later tasks: newly drawn, 0, or the values of `weights`"
    )
    expected_tasks: Positive = Field(
        5, description="n: with a search, task t < n may own 1/(n-t+1) of the weights free in its network"
    )
    tail_share: Share = Field(0.5, description="with a search, the share of the free weights from task n on")
    cap: bool = Field(True, description="whether these bounds hold; without them early tasks may take everything")

    @model_validator(mode="after")
    def _groups_are_ranked_together(self) -> Self:
        if isinstance(self.ratio, Search) and self.ratio.space == "groups" and self.scope != "global":
            raise ValueError("`space: groups` needs `scope: global`: each group ranks its weights by themselves")
        return self


class Individual(Settings):
    """A network for each task: nothing is shared, nothing forgotten, and the size grows with every task. The bound that
    other methods are measured against."""

    type: Literal["individual"] = Field(description="`individual`")


class Joint(Settings):
    """Train one network on all tasks of a sequence at once (Caruana 1997), in turns of a batch; all weights are shared,
    heads, biases and normalisations are each task's own, as in packing. It needs all data at the same time. `epochs`,
    learning rate, optimiser and schedule are those of `training`, whatever a task overrides."""

    type: Literal["joint"] = Field(description="`joint`")


class FineTuning(Settings):
    """Train everything on each task in turn; only heads are private. Shows what forgetting is."""

    type: Literal["finetuning"] = Field(description="`finetuning`")


class Frozen(Settings):
    """Train the first task; later ones train a head on its features, and a part (the decoder) that no task has used
    before, but nothing else."""

    type: Literal["frozen"] = Field(description="`frozen`")


class LwF(Settings):
    """Learning without forgetting (Li & Hoiem 2016): fine-tuning in which the heads of earlier tasks keep, on images of
    the new one, the outputs that they had before it. Without the paper's warm-up of the new head alone."""

    type: Literal["lwf"] = Field(description="`lwf`")
    strength: float = Field(1.0, ge=0, description="weight of these losses (λ of equation 4); 0 is fine-tuning")
    temperature: float = Field(2.0, gt=0, description="by which outputs are softened before they are compared (T)")


class EWC(Settings):
    """Elastic weight consolidation (Kirkpatrick et al. 2017), online (Schwarz et al. 2018): fine-tuning in which
    parameters are drawn to where they were, each by its Fisher information, summed over the tasks so far."""

    type: Literal["ewc"] = Field(description="`ewc`")
    strength: float = Field(1000.0, ge=0, description="weight of this pull (λ of equation 3); 0 is fine-tuning")


def _method_type(value: Any) -> str:
    return str(value.get("type", "packing") if isinstance(value, dict) else getattr(value, "type", "packing"))


Method = Annotated[
    Annotated[Packing, Tag("packing")]
    | Annotated[Individual, Tag("individual")]
    | Annotated[Joint, Tag("joint")]
    | Annotated[FineTuning, Tag("finetuning")]
    | Annotated[Frozen, Tag("frozen")]
    | Annotated[LwF, Tag("lwf")]
    | Annotated[EWC, Tag("ewc")],
    Discriminator(_method_type),
]

Augmentation = Literal["flip", "vertical_flip", "shift", "brightness"]


class Training(Settings):
    """How a network is trained. Any of these can be overridden in a task."""

    epochs: Positive = Field(20, description="epochs of training; the best on the validation split is kept")
    retrain_epochs: Positive = Field(5, description="epochs of retraining after release; the best is kept")
    batch_size: int = Field(32, ge=2, description="images in a batch")
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="`sgd` (with momentum) or `adamw`")
    learning_rate: float = Field(0.002, gt=0, description="at the start of training")
    retrain_learning_rate: float = Field(0.002, gt=0, description="at the start of retraining and of each trial")
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
    orders: Orders = Field(
        "given", description="in which orders each sequence is learned: as `given`, `all`, or so many: `3 random`"
    )
    training: Training = Field(Training(), description="how networks are trained")

    def training_of(self, task: str) -> Training:
        """The training settings of a task, its own overrides included."""
        return Training.model_validate(self.training.model_dump() | self.tasks[task].training)
