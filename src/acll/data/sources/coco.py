"""Annotations in COCO's format (Lin et al. 2014), drawn as masks of classes."""

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic import Field

from acll.data.errors import DataError
from acll.data.faults import DataFault, some
from acll.data.image_files import may_be_image, unused
from acll.data.images import Pixels, UnreadableError, within
from acll.data.manifest import FileNotes, Manifest, Sample, group_of
from acll.data.names import alike, difference, folded
from acll.data.prepared import IGNORE
from acll.data.reading import Opener
from acll.data.storage import SPLITS, Storage, absent, content_of, is_compressed, storage_of
from acll.data.task import RawData
from acll.errors import quoted
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
_LONGEST = 2**31  # pixels of a side, more than any format has
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
    if path.is_file() and is_compressed(path):  # which would have to be read through
        return [path]
    storage = storage_of(path)
    if path.is_file():
        return [path]
    parts = _parts(task).values()
    wanted = tuple(_in(part.images, "") for part in parts)
    annotations = {_in("", part.annotations) for part in parts}
    found = [name for name in storage.names() if name.startswith(wanted) or name in annotations]
    for part in parts:
        if _in("", part.annotations) not in found:
            raise _no_annotations(storage, part, path)
    return [path / name for name in found]


def _parts(task: Coco) -> dict[str, CocoSplit]:
    """Return the splits that a task has."""
    parts = {split: getattr(task, split) for split in SPLITS}
    return {split: part for split, part in parts.items() if part is not None}


def _no_annotations(storage: Storage, part: CocoSplit, path: Path) -> DataError:
    near = storage.near(part.annotations)
    hint = ""
    if near not in (None, part.annotations):
        hint = f"; {near} is, {difference(part.annotations, str(near))}"
    words = storage.special(part.annotations) or f"there is no such file{hint}"
    return DataError(f"{path}/{part.annotations}: {words}")


def _manifest(task: Coco, root: Path) -> Manifest:
    """Return the samples of all splits; `mask` of a sample is (height, width, annotations).

    Raises DataError.
    """
    path = root / task.path
    storage = storage_of(path)
    names = storage.names()
    present = set(names)
    parts = _parts(task)
    contents = {split: _content(storage, part, path) for split, part in parts.items()}
    for part in parts.values():
        _refuse_absent_folder(storage, part, path, names)
    wanted = _wanted(task, contents, path)
    index = {name: 1 + number for number, name in enumerate(wanted)}
    samples: list[Sample] = []
    faults: list[DataFault] = []
    for split, content in contents.items():
        folder = parts[split].images
        for name, image, drawn in _drawn(content, folder, index):
            fault = _fault_of_name(storage, present, folder, image["file_name"])
            if fault is not None:
                faults.append(fault)
                continue
            mask = (image["height"], image["width"], drawn)
            samples.append(Sample(name, split, name, mask=mask, group=group_of(name, task.group)))
    _refuse_links(storage, samples, path)
    below = tuple(_in(part.images, "") for part in parts.values())
    among = [*names, *storage.specials()]
    looked_at, hidden = (
        [name for name in found if name.startswith(below)] for found in (among, storage.hidden())
    )
    used = [sample.image for sample in samples]
    warnings = unused(storage, looked_at, hidden, used, "the annotations do not list it")
    for split, content in contents.items():
        warnings += _doubtful(content, parts[split].annotations)

    images = Opener(storage)
    # two splits may annotate an image, each in its own way
    drawings = {(sample.split, sample.image): sample.mask for sample in samples}

    @lru_cache(maxsize=1)  # neighbouring tiles are of one image
    def mask_of(split: str, name: str) -> Pixels:
        height, width, drawn = drawings[split, name]
        return _mask(height, width, drawn)

    def read(sample: Sample) -> tuple[Pixels, Pixels | None]:
        image, size = images.open(sample.image).pixels(sample.box), sample.mask[:2]
        # The annotations may state any size, so nothing is drawn before it is that of the image.
        # A mask without memory carries the size to where the two are compared.
        if sample.box is None and image.shape[1:] != size:
            return image, np.broadcast_to(np.uint8(IGNORE), size)
        return image, within(mask_of(sample.split, sample.image), sample.box)

    def size(sample: Sample) -> list[tuple[int, int]]:
        return [images.open(sample.image).size, sample.mask[:2]]

    return Manifest(
        "segmentation",
        [BACKGROUND, *wanted],
        list(contents),
        samples,
        read,
        size,
        faults,
        warnings,
        notes=lambda sample: FileNotes({sample.image: images.open(sample.image).pages()}),
    )


def _refuse_absent_folder(
    storage: Storage, part: CocoSplit, path: Path, names: Sequence[str]
) -> None:
    """Raise DataError where a folder of images has no file, and so another one is meant."""
    if any(name.startswith(_in(part.images, "")) for name in names):
        return
    near = storage.near(part.images)
    folders = sorted({name.rpartition("/")[0] for name in names if may_be_image(name)} - {""})
    there = f"; there is {some(folders)}" if folders else ""
    if near not in (None, part.images):
        there = f"; {near} is, {difference(part.images, str(near))}"
    raise DataError(f"{path}/{part.images}: there is no such folder of images{there}")


def _wanted(task: Coco, contents: dict[str, dict[str, Any]], path: Path) -> list[str]:
    """Return the names of the categories that are classes, in order. Raises DataError."""
    of_split = {
        split: list(dict.fromkeys(category["name"] for category in content["categories"]))
        for split, content in contents.items()
    }
    wanted = task.classes or of_split["train"]
    unknown = sorted(set(wanted) - set(of_split["train"]))
    if unknown:
        raise DataError(
            f"{path}: no category is called {some(unknown)} (there are: "
            f"{', '.join(of_split['train'])})"
        )
    if len(wanted) > IGNORE - 1:
        raise DataError(
            f"{path}: {len(wanted)} categories, more than the {IGNORE - 1} that a mask can hold; "
            "name those to use in `classes`"
        )
    for name in wanted:
        if folded(name) == BACKGROUND:
            raise DataError(
                f"{path}: a category is called {name}, as class 0 is, which is all that nothing "
                "covers; name the other categories in `classes`, or give it another name"
            )
    for split, names in of_split.items():
        # a category that is another one by a blank alone would be background
        near = [group for group in alike([*wanted, *names]) if not set(group) <= set(wanted)]
        if near:
            raise DataError(
                f"{path}: categories of {split} whose names are nearly alike: "
                f"{', '.join(map(ascii, near[0]))}; give them one name"
            )
        used = {entry["category_id"] for entry in contents[split]["annotations"]}
        called = {entry["name"] for entry in contents[split]["categories"] if entry["id"] in used}
        if task.classes is None and called - set(wanted):
            raise DataError(
                f"{path}: categories of {split} that train does not have: "
                f"{some(sorted(called - set(wanted)))}; name those to use in `classes`"
            )
    return wanted


def _fault_of_name(
    storage: Storage, present: set[str], folder: str, file_name: str
) -> DataFault | None:
    """Return what is wrong with the `file_name` of an image; None where it is there."""
    name = _in(folder, file_name)
    below = PurePosixPath(_in(folder, ""))
    if ".." in PurePosixPath(name).parts or not PurePosixPath(name).is_relative_to(below):
        return DataFault("missing", name, f"named in the annotations, but not below {below}")
    if name in present:
        return None
    # a file_name may repeat the folder, or the last parts of it
    for parent in below.parents:
        meant = storage.near(_in(parent.as_posix(), file_name))
        if meant in present and PurePosixPath(str(meant)).is_relative_to(below):
            own = PurePosixPath(str(meant)).relative_to(below)
            words = f"named in the annotations, but not there; {meant} is"
            return DataFault(
                "missing", name, f"{words}: a file_name begins below `{below}`, so write {own}"
            )
    return absent(storage, name, "the annotations")


def _refuse_links(storage: Storage, samples: Sequence[Sample], path: Path) -> None:
    """Raise DataError where a split lists a file under two names, which would have two masks."""
    names: dict[tuple[str, Hashable], str] = {}
    for sample in samples:
        other = names.setdefault((sample.split, storage.file_of(sample.image)), sample.image)
        if other != sample.image:
            raise DataError(
                f"{path}: the annotations of {sample.split} list one image under two names, of "
                f"which one is a link: {other}, {sample.image}; keep one of them"
            )


def _doubtful(content: dict[str, Any], file: str) -> list[DataFault]:
    """Return a fault for annotations of images that are not listed, for those that share an id, and
    for categories that share a name."""
    listed = {image["id"] for image in content["images"]}
    loose = [one["image_id"] for one in content["annotations"] if one["image_id"] not in listed]
    faults = []
    if loose:
        ids = some([str(one) for one in dict.fromkeys(loose)])
        words = f"annotations of images that it does not list: {len(loose)} (of image {ids})"
        faults.append(DataFault("annotation", file, words))
    # these ids are needed for nothing else, so they may be absent, or anything
    counts = Counter(one["id"] for one in content["annotations"] if type(one.get("id")) in _ID)
    twice = [str(one) for one, count in counts.items() if count > 1]
    if twice:
        words = f"ids that several annotations have: {len(twice)} ({some(twice)}); all are drawn"
        faults.append(DataFault("annotation", file, words))
    counts = Counter(category["name"] for category in content["categories"])
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        words = f"several categories are called {some(twice)}; they are one class"
        faults.append(DataFault("annotation", file, words))
    return faults


def _content(storage: Storage, part: CocoSplit, path: Path) -> dict[str, Any]:
    """Return the annotations of a split.

    Raises DataError where they are not in COCO's format, or contradict themselves.
    """
    where = f"{path}/{part.annotations}"
    try:
        content = json.loads(
            content_of(storage, part.annotations), object_pairs_hook=_without_doubles
        )
        for key, kinds in _NEEDED.items():
            for entry in content[key]:
                lacking = [name for name, kind in kinds.items() if not _fits(entry.get(name), kind)]
                if lacking:
                    raise DataError(
                        f"{where}: an entry of `{key}` has no {' or '.join(lacking)}, or something "
                        f"else there: {quoted(json.dumps(entry))}"
                    )
        fault = _contradiction(content, part.images)
    except FileNotFoundError:
        raise _no_annotations(storage, part, path) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        words = {
            IsADirectoryError: "a folder, not a file of annotations",
            KeyError: f"has no {error}",
            OSError: getattr(error, "strerror", None) or f"cannot be read: {error}",
        }.get(type(error), f"not annotations in COCO's format: {error}")
        raise DataError(f"{where}: {words}") from None
    if fault is not None:
        raise DataError(f"{where}: {fault}")
    return dict(content)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises ValueError where a key stands there twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = [key for key, count in counts.items() if count > 1]
        raise ValueError(f"the key {some(twice)} stands there twice in one object")
    return content


def _contradiction(content: dict[str, Any], folder: str) -> str | None:
    """Return in words what in a file of annotations contradicts itself; None for nothing."""
    images, annotations = content["images"], content["annotations"]
    categories = content["categories"]
    for what, ids in (
        ("image", [one["id"] for one in images] + [one["image_id"] for one in annotations]),
        (
            "category",
            [one["id"] for one in categories] + [one["category_id"] for one in annotations],
        ),
    ):
        texts = [one for one in ids if isinstance(one, str)]
        if texts and len(texts) < len(ids):
            return f"ids of {what} are numbers, and text in some places, such as {texts[0]!r}"
    for what, named in (
        ("images of one id", [(one["id"], one["file_name"]) for one in images]),
        ("images of one file_name", [(_in(folder, one["file_name"]), one["id"]) for one in images]),
        ("categories of one id", [(one["id"], one["name"]) for one in categories]),
    ):
        groups: dict[Any, list[str]] = defaultdict(list)
        for key, other in named:
            groups[key].append(str(other))
        twice = [f"{key} ({some(others)})" for key, others in groups.items() if len(others) > 1]
        if twice:
            return f"has several {what}: {some(twice)}"
    known = {category["id"] for category in categories}
    unknown = {str(one["category_id"]) for one in annotations if one["category_id"] not in known}
    if unknown:
        return f"annotations of categories that it does not have: {some(sorted(unknown))}"
    odd = [one for one in annotations if one.get("iscrowd") not in (None, 0, 1)]
    if odd:
        return f"an annotation whose iscrowd is neither 0 nor 1: {quoted(json.dumps(odd[0]))}"
    return None


def _fits(value: Any, kind: tuple[type, ...]) -> bool:
    """Return whether a value is of one of these types, and a number of pixels one of an image."""
    return type(value) in kind and (kind != _COUNT or 0 < value < _LONGEST)


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

    An object is as large as the pixels that are drawn of it, whatever its `area` says; of equal
    ones the later lies on top. Raises UnreadableError for an annotation that cannot be drawn.
    """
    mask = np.zeros((height, width), np.uint8)
    # pixels of the object that lies on top
    sizes = np.full((height, width), height * width, np.int64)
    for annotation, label in annotations:
        try:
            inside = _inside(annotation, height, width)
        except Exception as error:  # the library raises whatever there is
            raise _undrawn(annotation, error) from None
        size = int(np.count_nonzero(inside))
        seen = inside & (size <= sizes)
        mask[seen] = IGNORE if annotation.get("iscrowd") else label
        sizes[seen] = size
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
            points = polygon.reshape(-1, 2)
            if (points.max(axis=0) < 0).any() or (points.min(axis=0) > (width, height)).any():
                raise ValueError("a polygon lies outside of the image")
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
