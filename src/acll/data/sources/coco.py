"""Annotations in COCO's format (Lin et al. 2014), drawn as masks of classes."""

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic import Field

from acll.data.errors import DataError
from acll.data.faults import DataFault, some
from acll.data.image_files import reader
from acll.data.images import Pixels, UnreadableError, read_image, size_of, within
from acll.data.manifest import Manifest, Sample, group_of
from acll.data.prepared import IGNORE
from acll.data.storage import COMPRESSED, SPLITS, Storage, content_of, storage_of
from acll.data.task import RawData
from acll.settings import Names, Settings


class CocoSplit(Settings):
    """Where a split of a task of source `coco` lies, below its `path`."""

    images: str = Field(description="the folder of the images")
    annotations: str = Field(description="the .json file of the annotations")


class Coco(RawData):
    """Annotations in COCO's format (polygons or run lengths), drawn as masks.

    0 is the background, smaller objects lie upon larger ones, crowds are ignored.
    """

    source: Literal["coco"] = Field(description="`coco`")
    kind: Literal["segmentation"] = Field("segmentation", description="always segmentation")
    classes: Names | None = Field(
        None, description="the categories to use, in this order; else all in the file's order"
    )
    train: CocoSplit = Field(description="`images` and `annotations` of the training split")
    val: CocoSplit | None = Field(None, description="of the validation split; else it is cut")
    test: CocoSplit | None = Field(None, description="of the test split; else it is cut")

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Raises DataError."""
        return _manifest(self, root)

    def raw_files(self, root: Path) -> list[Path]:
        """Return the files that are read. Raises DataError."""
        return _raw_files(self, root)


Drawn = list[tuple[dict[str, Any], int]]  # annotations, and the index of each one's class

BACKGROUND = "background"
_FAR = 10  # times the image's longer side
_ID = (int, str)
_COUNT = (int,)
_NEEDED: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": _ID, "file_name": (str,), "height": _COUNT, "width": _COUNT},
    "annotations": {"image_id": _ID, "category_id": _ID},
    "categories": {"id": _ID, "name": (str,)},
}


def _raw_files(task: Coco, root: Path) -> list[Path]:
    """Return the archive, or the annotations and all files in the folders of images.

    Raises DataError.
    """
    path = root / task.path
    if path.is_file() and path.name.endswith(COMPRESSED):  # which would have to be read through
        return [path]
    storage = storage_of(path)
    if path.is_file():
        return [path]
    parts = [getattr(task, split) for split in SPLITS if getattr(task, split) is not None]
    wanted = tuple(_in(part.images, "") for part in parts)
    annotations = {_in("", part.annotations) for part in parts}
    found = [name for name in storage.names() if name.startswith(wanted) or name in annotations]
    for part in parts:
        if _in("", part.annotations) not in found:
            raise DataError(f"{path}/{part.annotations}: there is no such file")
    return [path / name for name in found]


def _manifest(task: Coco, root: Path) -> Manifest:
    """Return the samples of all splits; `mask` of a sample is (height, width, annotations).

    Raises DataError.
    """
    path = root / task.path
    storage = storage_of(path)
    present = set(storage.names())
    contents = {
        split: _content(storage, part, path)
        for split in SPLITS
        if (part := getattr(task, split)) is not None
    }
    names = {category["id"]: category["name"] for category in contents["train"]["categories"]}
    wanted = task.classes or list(dict.fromkeys(names.values()))
    unknown = sorted(set(wanted) - set(names.values()))
    if unknown:
        raise DataError(
            f"{path}: no category is called {some(unknown)} (there are: "
            f"{', '.join(names.values())})"
        )
    if len(wanted) > IGNORE - 1:
        raise DataError(
            f"{path}: {len(wanted)} categories, more than the {IGNORE - 1} that a mask can hold; "
            "name those to use in `classes`"
        )
    index = {name: 1 + number for number, name in enumerate(wanted)}
    samples: list[Sample] = []
    faults: list[DataFault] = []
    for split, content in contents.items():
        folder = getattr(task, split).images
        for name, image, drawn in _drawn(content, folder, index):
            if name in present:
                mask = (image["height"], image["width"], drawn)
                samples.append(
                    Sample(name, split, name, mask=mask, group=group_of(name, task.group))
                )
            else:
                faults.append(DataFault("missing", name, "named in the annotations, but not there"))

    image_of = reader(storage, read_image)
    drawings = {sample.image: sample.mask for sample in samples}

    @lru_cache(maxsize=1)  # neighbouring tiles are of one image
    def mask_of(name: str) -> Pixels:
        height, width, drawn = drawings[name]
        return _mask(height, width, drawn)

    def read(sample: Sample) -> tuple[Pixels, Pixels | None]:
        image, size = image_of(sample.image, sample.box), sample.mask[:2]
        # The annotations may state any size, so nothing is drawn before it is that of the image.
        # A mask without memory carries the size to where the two are compared.
        if sample.box is None and image.shape[1:] != size:
            return image, np.broadcast_to(np.uint8(IGNORE), size)
        return image, within(mask_of(sample.image), sample.box)

    def size(sample: Sample) -> list[tuple[int, int]]:
        return [size_of(storage.open(sample.image), sample.image), sample.mask[:2]]

    return Manifest(
        "segmentation", [BACKGROUND, *wanted], list(contents), samples, read, size, faults
    )


def _content(storage: Storage, part: CocoSplit, path: Path) -> dict[str, Any]:
    """Return the annotations of a split. Raises DataError where they are not in COCO's format."""
    try:
        content = json.loads(content_of(storage, part.annotations))
        for key, kinds in _NEEDED.items():
            for entry in content[key]:
                lacking = [name for name, kind in kinds.items() if not _fits(entry.get(name), kind)]
                if lacking:
                    raise DataError(
                        f"{path}/{part.annotations}: an entry of `{key}` has no "
                        f"{' or '.join(lacking)}, or something else there"
                    )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        words = {
            FileNotFoundError: "there is no such file",
            IsADirectoryError: "a folder, not a file of annotations",
            KeyError: f"has no {error}",
        }.get(type(error), f"not annotations in COCO's format: {error}")
        raise DataError(f"{path}/{part.annotations}: {words}") from None
    known = {category["id"] for category in content["categories"]}
    unknown = sorted(
        {
            str(entry["category_id"])
            for entry in content["annotations"]
            if entry["category_id"] not in known
        }
    )
    if unknown:
        raise DataError(
            f"{path}/{part.annotations}: annotations of categories that it does not have: "
            f"{some(unknown)}"
        )
    return dict(content)


def _fits(value: Any, kind: tuple[type, ...]) -> bool:
    """Return whether a value is of one of these types, and where it counts pixels, at least 1."""
    return type(value) in kind and (kind != _COUNT or value > 0)


def _drawn(
    content: dict[str, Any], folder: str, index: dict[str, int]
) -> Iterator[tuple[str, dict[str, Any], Drawn]]:
    """Yield the images of a split by name, and what is drawn of each.

    index: the class of each category that is used, by name: each split numbers its categories in
    its own way.
    """
    labels = {category["id"]: index.get(category["name"]) for category in content["categories"]}
    drawn: dict[Any, Drawn] = defaultdict(list)
    for annotation in content["annotations"]:
        label = labels[annotation["category_id"]]
        if label is not None:
            drawn[annotation["image_id"]].append((annotation, label))
    for image in sorted(content["images"], key=lambda image: str(image["file_name"])):
        yield _in(folder, image["file_name"]), image, drawn[image["id"]]


def _in(folder: str, name: str) -> str:
    """Return a name in a folder as a `Storage` spells it; without a name, what names begin with."""
    path = (PurePosixPath(folder.strip("/")) / name).as_posix()
    return "" if path == "." else path if name else f"{path}/"


def _mask(height: int, width: int, annotations: Drawn) -> Pixels:
    """Return class indices [height, width], smaller objects upon larger ones.

    Raises UnreadableError for an annotation that cannot be drawn.
    """
    mask = np.zeros((height, width), np.uint8)
    shapes = []
    for annotation, label in annotations:
        try:
            area = annotation.get("area")
            if not isinstance(area, int | float):
                area = _inside(annotation, height, width).sum()
            shapes.append((float(area), annotation, label))
        except Exception as error:
            raise _undrawn(annotation, error) from None
    # the largest first, so that the smaller ones are drawn upon them
    for _, annotation, label in sorted(shapes, key=lambda shape: -shape[0]):
        try:
            mask[_inside(annotation, height, width)] = (
                IGNORE if annotation.get("iscrowd") else label
            )
        except Exception as error:  # the library raises whatever there is
            raise _undrawn(annotation, error) from None
    return mask


def _undrawn(annotation: dict[str, Any], error: Exception) -> UnreadableError:
    return UnreadableError(f"annotation {annotation.get('id')} cannot be drawn: {error}")


def _inside(annotation: dict[str, Any], height: int, width: int) -> Pixels:
    """Return where an object is, bool [height, width].

    Raises ValueError, and whatever the library raises. The library is given sound polygons only:
    others make it fill all memory. Run lengths are decoded here: of those that do not cover the
    image, the library would leave pixels as they were in memory.
    """
    from pycocotools import mask as codec

    outline = annotation.get("segmentation") or []
    if not outline:
        raise ValueError("it has no outline, and a box alone is no mask")
    if isinstance(outline, list):
        polygons = [np.array(polygon, np.float64) for polygon in outline]
        for polygon in polygons:
            if polygon.ndim != 1 or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError("a polygon needs three points or more, as x, y, x, y, …")
            if not (np.abs(polygon) <= _FAR * max(height, width)).all():
                raise ValueError("a polygon has points far outside the image, or none at all")
        shapes = codec.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
        inside: Pixels = codec.decode(codec.merge(shapes)).astype(bool)
        return inside
    if list(outline["size"]) != [height, width]:
        raise ValueError(
            f"its run lengths are of {outline['size']} pixels, the image has {[height, width]}"
        )
    counts = outline["counts"]
    runs = counts if isinstance(counts, list) else _lengths(counts)
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError("its run lengths are not those of the image")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _lengths(text: str) -> list[int]:
    """Return the run lengths in COCO's text format. Raises ValueError.

    A character has six bits: five of a number and one that says that more follow. From the fourth
    length on, a number is the difference to the last length but one.
    """
    runs: list[int] = []
    value = shift = 0
    for code in text.encode():
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its run lengths are not in COCO's text format")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # the highest bit of a number is its sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut off")
    return runs
