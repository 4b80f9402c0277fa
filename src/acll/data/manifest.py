"""What a source offers, before a pixel is read: plain samples, and how to read one."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from acll.data.faults import DataFault
from acll.data.images import Box, Pixels
from acll.settings import Kind


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of a source.

    image and mask are whatever the source's `read` understands: a file's name, a position. label:
    the class, for classification. box: the part of the image that the sample is, all of it where
    None. whole: the id of the image.
    """

    id: str
    split: str
    image: Any
    label: int = 0
    mask: Any = None
    group: str = ""
    box: Box | None = None
    whole: str = ""


@dataclass(frozen=True)
class Manifest:
    """The samples of a task in the order of their splits and ids, and what was wrong with other
    files.

    splits: those that the source has, even where nothing in them can be used; the others are cut
    from `train`. read: image [C, H, W] of a sample at its own size (or the part in its box), and
    for segmentation its mask [H, W]. size: height and width of a sample's whole image and, for
    segmentation, of its mask. Both raise UnreadableError or OSError. trusted: made by this package,
    so neither damaged nor copied.
    """

    kind: Kind
    classes: list[str]
    splits: Sequence[str]
    items: list[Sample]
    read: Callable[[Sample], tuple[Pixels, Pixels | None]]
    size: Callable[[Sample], Sequence[tuple[int, int]]]
    faults: list[DataFault] = field(default_factory=list)
    trusted: bool = False


def group_of(identity: str, pattern: str | None) -> str:
    """What the pattern matches in an id, or the id itself: samples with equal groups stay in one
    split."""
    match = re.search(pattern, identity) if pattern is not None else None
    return match.group() if match else identity
