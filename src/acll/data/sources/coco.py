"""Annotations in COCO's format (Lin et al. 2014), drawn as masks of classes."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from acll.data.errors import DataError
from acll.data.faults import Fault, some
from acll.data.images import Pixels, UnreadableError, read_image, size_of
from acll.data.listing import Item, Listing, group_of
from acll.data.places import SPLITS, Place, place_of
from acll.data.prepared import IGNORE
from acll.settings import Coco, CocoSplit

BACKGROUND = "background"


def raw_files(task: Coco, root: Path) -> list[Path]:
    """The archive, or the annotations and all files in the folders of images. Raises DataError."""
    path = root / task.path
    place = place_of(path)
    if path.is_file():
        return [path]
    parts = [getattr(task, split) for split in SPLITS if getattr(task, split) is not None]
    wanted = tuple(f"{part.images.strip('/')}/" for part in parts)
    annotations = {part.annotations for part in parts}
    return [path / name for name in place.names() if name.startswith(wanted) or name in annotations]


def list_coco(task: Coco, root: Path) -> Listing:
    """The samples of all splits; `mask` holds what is drawn: (height, width, annotations). Raises DataError."""
    path = root / task.path
    place = place_of(path)
    present = set(place.names())
    contents = {split: _content(place, part, path) for split in SPLITS if (part := getattr(task, split)) is not None}
    names = {category["id"]: category["name"] for category in contents["train"]["categories"]}
    wanted = task.classes or list(names.values())
    unknown = sorted(set(wanted) - set(names.values()))
    if unknown:
        raise DataError(f"{path}: no category is called {some(unknown)} (there are: {', '.join(names.values())})")
    if len(wanted) > IGNORE - 1:
        raise DataError(f"{path}: {len(wanted)} categories, more than the {IGNORE - 1} that a mask can hold; "
                        "name those to use in `classes`")  # fmt: skip
    index = {key: 1 + wanted.index(name) for key, name in names.items() if name in wanted}
    items: list[Item] = []
    faults: list[Fault] = []
    for split, content in contents.items():
        folder = getattr(task, split).images.strip("/")
        drawn = defaultdict(list)
        for annotation in content["annotations"]:
            if annotation["category_id"] in index:
                drawn[annotation["image_id"]].append(annotation)
        for image in sorted(content["images"], key=lambda image: str(image["file_name"])):
            name = f"{folder}/{image['file_name']}"
            if name not in present:
                faults.append(Fault("missing", name, "named in the annotations, but not there"))
                continue
            mask = (image["height"], image["width"], drawn[image["id"]])
            items.append(Item(name, split, name, mask=mask, group=group_of(name, task.group)))

    def read(item: Item) -> tuple[Pixels, Pixels | None]:
        top, left, bottom, right = item.box or (0, 0, None, None)
        height, width, drawn = item.mask
        image = read_image(place.open(item.image), item.image, item.box)
        return image, _mask(height, width, drawn, index)[top:bottom, left:right]

    def size(item: Item) -> list[tuple[int, int]]:
        return [size_of(place.open(item.image), item.image), item.mask[:2]]

    return Listing("segmentation", [BACKGROUND, *wanted], items, read, size, faults)


def _content(place: Place, part: CocoSplit, path: Path) -> dict[str, Any]:
    """The annotations of a split. Raises DataError where they are not in COCO's format."""
    try:
        file = place.open(part.annotations)
        content = json.loads(file.read_bytes() if isinstance(file, Path) else file.read())
        needed = (("images", "id", "file_name", "height", "width"), ("annotations", "image_id", "category_id"),
                  ("categories", "id", "name"))  # fmt: skip
        for key, *inner in needed:
            for entry in content[key]:
                lacking = [name for name in inner if name not in entry]
                if lacking:
                    raise DataError(f"{path}/{part.annotations}: an entry of `{key}` has no {' or '.join(lacking)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}/{part.annotations}: not annotations in COCO's format: {error!r}") from None
    return dict(content)


def _mask(height: int, width: int, annotations: list[dict[str, Any]], index: dict[int, int]) -> Pixels:
    """[height, width] class indices."""
    from pycocotools import mask as codec

    mask = np.zeros((height, width), np.uint8)
    for annotation in sorted(annotations, key=lambda annotation: -float(annotation.get("area", 0))):
        outline = annotation.get("segmentation") or []
        try:
            if isinstance(outline, list):
                runs = codec.merge(codec.frPyObjects(outline, height, width)) if outline else None
            elif isinstance(outline["counts"], list):
                runs = codec.frPyObjects(outline, height, width)
            else:
                runs = outline
            inside = codec.decode(runs).astype(bool) if runs is not None else np.zeros_like(mask, bool)
            mask[inside] = IGNORE if annotation.get("iscrowd") else index[annotation["category_id"]]
        except Exception as error:  # the library raises whatever there is
            raise UnreadableError(f"annotation {annotation.get('id')} cannot be drawn: {error}") from None
    return mask
