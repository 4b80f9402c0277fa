"""The base of all settings, and the types that several sections of a configuration share.

Each section's types lie beside what they configure: tasks in `acll.data`, networks in
`acll.networks`, methods in `acll.methods`, training in `acll.training`. `acll.config` puts them
together. A step imports its sections only, so a new key of one reruns nothing of another.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from acll import plugins
from acll.errors import ODD_LETTER


@dataclass(frozen=True)
class NameOf:
    """The mark of a type of text: one of some names, or of the plug-ins of a kind."""

    kind: plugins.PluginKind
    names: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def checked(self, name: str) -> str:
        """Return a name. Raises PydanticCustomError where there is none such."""
        known = self.names if name in self.names else (*self.names, *plugins.names(self.kind))
        if name in known:
            return name
        # the words of pydantic for a value that is none of some
        *first, last = map(repr, known)
        expected = f"{', '.join(first)} or {last}" if first else last
        context = {"expected": expected}
        raise PydanticCustomError("literal_error", "Input should be {expected}", context)


Kind = Literal["classification", "segmentation"]
Sampling = Literal["shuffled", "balanced"]
AUGMENTATIONS = (
    "flip",
    "vertical_flip",
    "shift",
    "brightness",
    "crop",
    "affine",
    "rotation",
    "colour",
    "blur",
    "erasing",
    "trivialaugment",
    "randaugment",
    "mixup",
    "cutmix",
)
MIXING = ("mixup", "cutmix")  # those that mix images and their labels
Scope = Literal["layer", "global", "channel"]
Criterion = Literal["learned", "magnitude"]
Release = Literal["gradual", "once"]
Reuse = Literal["all", "chosen"]
MAX_TASKS = 255  # of a network: owners are bytes in memory
AUTO = "auto"  # in place of a task's name: the one that an image most likely belongs to
# the metrics that a task may be scored by, beside plug-ins; the usual one first
METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "macro_f1"),
    "segmentation": ("mean_iou", "mean_dice", "pixel_accuracy", "boundary_f1"),
}
ALL_METRICS = tuple(name for of_kind in METRICS.values() for name in of_kind)
MetricName = Annotated[str, NameOf("metric", ALL_METRICS)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
MOST_BANDS = 1000  # of an image
MOST_PIXELS = 2**24  # of an image that goes through a network whole
MOST_VALUES = 2**27  # of one in all its channels
MOST_TEXT = 1000  # characters of a name
WEIGHTS_PER_ROOT = 27.0  # docs/search.md says where from
FEWEST_SAMPLES = 50  # a validation split below this says little; a run warns


def expected_share(weights: int) -> float:
    """Return the share that a task may need of so many weights, before any trial."""
    return min(1.0, WEIGHTS_PER_ROOT / math.sqrt(weights))


def _sides(value: Any) -> Any:
    """Return height and width; a number is both."""
    sides = [value, value] if isinstance(value, int) else value
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != 2
        or any(type(one) is not int or one < 1 for one in sides)
    ):
        raise ValueError("must be a number of pixels above 0, or two: [height, width]")
    refuse_large((sides[0], sides[1]))
    return tuple(sides)


def refuse_large(sides: tuple[int, int]) -> None:
    """Raise ValueError where images of this height and width would fit into no memory."""
    if min(sides) < 1 or sides[0] * sides[1] > MOST_PIXELS:
        raise ValueError(
            f"{list(sides)}: must be {MOST_PIXELS:,} pixels in all at most, and one at least"
        )


def refuse_odd_text(text: str) -> None:
    """Raise ValueError for text that is too long for a name, or has line breaks, terminal escapes,
    changes of direction or bytes that are no text."""
    if len(text) > MOST_TEXT:
        raise ValueError(
            f"{ascii(text)[:50]}… has {len(text):,} characters, more than {MOST_TEXT:,}"
        )
    if ODD_LETTER.search(text):
        raise ValueError(f"{ascii(text)[:50]} has control characters")


_AUGMENTATION = NameOf("augmentation", AUGMENTATIONS)
_STRENGTHS = {"rotation": (180, "degrees"), "crop": (1, "share of the area")}  # at most


def _augmentation(value: Any) -> Any:
    """Return the name of an augmentation, or a mapping of it to its strength.

    Raises ValueError, or PydanticCustomError for an unknown name.
    """
    if isinstance(value, dict) and len(value) > 1:
        entries = ", ".join(f"{{{name}: {strength}}}" for name, strength in value.items())
        raise ValueError(f"each augmentation is an entry of its own: write {entries}")
    name = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else value
    _AUGMENTATION.checked(name)
    if name == value:
        return value
    if name not in _STRENGTHS:
        having = " and ".join(_STRENGTHS)
        raise ValueError(f"has no strength to be set, as {having} have; write {name}")
    most, unit = _STRENGTHS[name]
    strength = value[name]
    if type(strength) not in (int, float) or not 0 < strength <= most:
        raise ValueError(f"must be a number above 0, {most} at most: {unit}")
    return {name: float(strength)}


AugmentationName = Annotated[str, _AUGMENTATION]
Augmentation = Annotated[
    AugmentationName | dict[AugmentationName, float], BeforeValidator(_augmentation)
]


def augmentation_name(one: Augmentation) -> str:
    """Return what an augmentation is called, without its strength."""
    return one if isinstance(one, str) else next(iter(one))


def _without_repeats(value: list[Augmentation]) -> list[Augmentation]:
    """Return augmentations. Raises ValueError where one stands there twice, with whatever
    strengths: one of them is likely to be a slip."""
    names = list(map(augmentation_name, value))
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{' and '.join(twice)} may stand there once only")
    return value


Augmentations = Annotated[list[Augmentation], AfterValidator(_without_repeats)]
Size = Annotated[tuple[int, int], BeforeValidator(_sides)]
Names = Annotated[list[str], Field(min_length=2, max_length=255)]


class Settings(BaseModel):
    """What all parts of the configuration have in common: immutable, no unknown keys, no silent
    conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --------------------------------------------------------------------------------------------------
# tasks
