"""What a source offers, before a pixel is read: plain samples, and how to read one."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.data.faults import DataFault
from acll.data.images import Box, Pixels
from acll.settings import Kind


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of a source, before it is read."""

    id: str
    split: str
    image: Any  # whatever the source's `read` understands: a file's name, a position
    label: int = 0  # index of the class, for classification
    mask: Any = None  # as image, for segmentation
    group: str = ""  # samples of equal groups stay in one split
    box: Box | None = None  # the part of the image that a tile is; None: all of it
    image_id: str = ""  # of a tile: the id of the image that it was cut from


@dataclass(frozen=True, slots=True)
class FileNotes:
    """What the files of a sample hold beside the pixels that are used."""

    # of each file: how many pages or frames it has, of which the first is used
    pages: Mapping[str, int] = field(default_factory=dict)
    # [entries, 3] the colours of the indices of the mask; None where these are grey levels
    palette: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Manifest:
    """The samples of a task, and what is wrong with files that make none.

    splits: those that the source has, even where nothing in them can be used; the others are cut
        from `train`.
    samples: in the order of their splits and ids.
    read: gives the image [C, H, W] of a sample at its own size, or the part in its box, and for
        segmentation its mask [H, W]. Raises UnreadableError or OSError.
    size: gives height and width of a sample's whole image and, for segmentation, of its mask.
        Raises as `read`.
    faults: of what makes no sample.
    warnings: of what is no matter of a sample, such as files that nothing uses.
    notes: gives what the files of a sample hold beside its pixels, once it was read. Raises as
        `read`.
    trusted: whether this package made the images, so that none is damaged or a duplicate.
    """

    kind: Kind
    classes: list[str]
    splits: Sequence[str]
    samples: list[Sample]
    read: Callable[[Sample], tuple[Pixels, Pixels | None]]
    size: Callable[[Sample], Sequence[tuple[int, int]]]
    faults: list[DataFault] = field(default_factory=list)
    warnings: list[DataFault] = field(default_factory=list)
    trusted: bool = False
    notes: Callable[[Sample], FileNotes] = lambda sample: FileNotes()


def group_of(identity: str, pattern: str | None) -> str:
    """Return the group of an id: what the pattern matches in it, or else the id itself."""
    match = re.search(pattern, identity) if pattern is not None else None
    return match.group() if match else identity
