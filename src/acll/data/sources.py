"""From a task of the configuration to its samples, and to the identity of its raw data."""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np

from acll.data.folders import files_of, read_images, read_masks
from acll.data.generated import generate
from acll.data.splits import DataError, Samples, cut
from acll.files import sha256, write_json
from acll.settings import AnyTask, Digits, Generated, ImageFolder

FINGERPRINTS = Path(".cache/fingerprints.json")  # below the repository


def read_splits(task: AnyTask, root: Path) -> tuple[dict[str, Samples], list[str]]:
    """The splits `train`, `val` and `test` of a task and the names of its classes. Raises DataError.

    What the source does not have is cut from its training split: first the test, then validation.
    """
    if isinstance(task, Digits):
        splits, classes = {"train": _digits(task)}, [str(digit) for digit in range(10)]
    elif isinstance(task, Generated):
        splits, classes = {"train": generate(task)}, [f"class_{index}" for index in range(task.classes)]
    elif isinstance(task, ImageFolder):
        splits, classes = read_images(task, root)
    else:
        splits, classes = read_masks(task, root)
    for split, share in (("test", task.test_share), ("val", task.validation_share)):
        if split not in splits:
            splits["train"], splits[split] = cut(splits["train"], share, len(classes), task.split_seed)
    for split, samples in splits.items():
        if len(samples) < 2:
            where = getattr(task, "path", task.source)
            raise DataError(
                f"{where}: the split {split} has {len(samples)} samples; more images, or another share, are needed"
            )
    return splits, classes


def _digits(task: Digits) -> Samples:
    from PIL import Image
    from sklearn.datasets import load_digits

    content = load_digits()
    height, width = task.image_size
    images = [Image.fromarray((image * (255 / 16)).round().astype(np.uint8)) for image in content.images]
    pixels = np.stack([np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) for image in images])
    ids = tuple(f"digits-{index:04d}" for index in range(len(images)))
    return Samples(pixels[:, None], content.target.astype(np.int64), ids, ids)


def fingerprint(task: AnyTask, root: Path, cache: Path) -> str:
    """The identity of the raw data of a task: names and content of its files, wherever they lie.

    Empty for sources that read no file. The digest of each file is kept in `cache` under its path, size and time of
    change, as DVC does. Raises DataError where the folder is missing.
    """
    if isinstance(task, Digits | Generated):
        return ""
    known: dict[str, list[object]] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):  # no cache yet, or one that was cut off
        known = json.loads(cache.read_text(encoding="utf-8"))
    total, changed = hashlib.sha256(), False
    for path in files_of(task, root):
        status = path.stat()
        key, stamp = str(path.resolve()), [status.st_size, status.st_mtime_ns]
        entry = known.get(key)
        if entry is None or entry[:2] != stamp:
            entry = [*stamp, sha256(path)]
            known[key], changed = entry, True
        total.update(f"{path.relative_to(root / task.path).as_posix()} {entry[2]}\n".encode())
    if changed:
        write_json(cache, known)
    return total.hexdigest()
