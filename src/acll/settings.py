"""The base of all settings, and the types that several sections of a configuration share.

Each section's types lie beside what they configure: tasks in `acll.data`, networks in
`acll.networks`, methods in `acll.methods`, training in `acll.training`. `acll.config` puts them
together. A step imports its sections only, so a new key of one reruns nothing of another.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from acll.errors import ODD_LETTER

Kind = Literal["classification", "segmentation"]
Augmentation = Literal["flip", "vertical_flip", "shift", "brightness"]
Scope = Literal["layer", "global", "channel"]
Criterion = Literal["learned", "magnitude"]
Release = Literal["gradual", "once"]
Reuse = Literal["all", "chosen"]
MetricName = Literal[
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "mean_iou",
    "mean_dice",
    "pixel_accuracy",
    "boundary_f1",
]
MAX_TASKS = 255  # of a network: owners are bytes in memory
AUTO = "auto"  # in place of a task's name: the one that an image most likely belongs to
# the metrics that a task may be scored by, the usual one first
METRICS: dict[Kind, tuple[MetricName, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "macro_f1"),
    "segmentation": ("mean_iou", "mean_dice", "pixel_accuracy", "boundary_f1"),
}
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


Size = Annotated[tuple[int, int], BeforeValidator(_sides)]
Names = Annotated[list[str], Field(min_length=2, max_length=255)]


class Settings(BaseModel):
    """What all parts of the configuration have in common: immutable, no unknown keys, no silent
    conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --------------------------------------------------------------------------------------------------
# tasks
