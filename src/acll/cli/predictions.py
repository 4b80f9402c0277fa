"""Predictions for people and programs: tables, CSV, JSON, masks, overlays with a legend."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from acll.data.images import IMAGE_SUFFIXES, resized_mask
from acll.data.storage import walk
from acll.errors import UserError, harmless
from acll.evaluation.pictures import class_colours, overlaid, visible
from acll.evaluation.words import shortened
from acll.files import finished_path, unfinished_path, written
from acll.progress import progress_bar
from acll.serving.inputs import ImageError, made_small
from acll.serving.model import PackedNetwork
from acll.serving.predictions import Classified, Prediction, Segmented

Named = tuple[Path, Prediction]
_BAR = 10  # files from which on there is a progress bar
_COUNTED = 2**24  # pixels of a mask that are counted at once
_LARGEST = 2048  # pixels of the longer side of an overlay
_MADE = (".mask.png", ".overlay.png")
_LONGEST_NAME = 255  # bytes of a name in a file system
_LONGEST = 60  # letters of a class in its legend


def files_of(images: Sequence[str], bad: list[str]) -> dict[Path, Path]:
    """Return the image files that are meant, each with the name that its outputs get.

    images: files; folders, whose files are called as they are there; or a single `-` for names on
    standard input, one a line. Folders in them that cannot be read are added to `bad`. Raises
    UserError where there are none.
    """
    if "-" in images and len(images) > 1:
        raise UserError(
            "- stands for all names, which are read from standard input; leave out the others"
        )
    names = list(images)
    if names == ["-"]:
        lines = sys.stdin.buffer.read().split(b"\n")
        names = [os.fsdecode(line.rstrip(b"\r")) for line in lines if line.strip()]
    found: dict[Path, Path] = {}
    for path in map(Path, names):
        inside = [path]
        if _is_folder(path):
            below = walk(path, unreadable=bad)
            names_below = sorted([*below.files, *below.special])  # the latter are said to be bad
            inputs = [name for name in names_below if _is_input(name)]
            masks = _masks_of_pairs(inputs)
            if masks:
                print(
                    f"{path}: {len(masks)} files in folders `masks` beside `images` are left out",
                    file=sys.stderr,
                )
            inside = [path / name for name in inputs if name not in masks]
        if not inside and any(name.endswith(_MADE) for name in names_below):
            raise UserError(f"{path}: holds no image but those that `acll predict` has written")
        if not inside:
            unread = "".join(f"\n{line}" for line in bad)
            raise UserError(
                f"{path}: there is no image in this folder, whose name would end with "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}{unread}"
            )
        for file in inside:
            found.setdefault(file, Path(file.name) if file == path else file.relative_to(path))
    if not found:
        raise UserError("no images were named")
    return found


def _masks_of_pairs(names: Sequence[str]) -> set[str]:
    """Return those names that lie in a folder `masks` beside a folder `images` with files."""
    parts = {name: Path(name).parts[:-1] for name in names}
    with_images = {
        folders[:depth]
        for folders in parts.values()
        for depth, folder in enumerate(folders)
        if folder == "images"
    }
    return {
        name
        for name, folders in parts.items()
        for depth, folder in enumerate(folders)
        if folder == "masks" and folders[:depth] in with_images
    }


def _is_folder(path: Path) -> bool:
    """Return whether it is a folder; what is wrong with another one is said when it is read."""
    try:
        return path.is_dir()
    except OSError:  # of a name that is too long, say
        return False


def _is_input(name: str) -> bool:
    """Return whether a file of a folder is an image to predict.

    Hidden files and those that `write_masks` has made are not.
    """
    hidden = Path(name).name.startswith(".")
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not (hidden or name.endswith(_MADE))


def each(
    network: PackedNetwork,
    task: str,
    files: Sequence[Path],
    device: str,
    bad: list[str],
    done: list[Path],
) -> Iterator[Named]:
    """Yield each file with its prediction, under a progress bar where there are many.

    Files that cannot be used are left out; what is wrong with them is added to `bad`. The others
    are added to `done` when the next one is asked for.
    """
    results: Iterable[tuple[Path, Prediction | ImageError]]
    results = zip(files, network.predict_each(task, files, device), strict=True)
    if len(files) >= _BAR:
        results = progress_bar(results, "", len(files), unit="image")
    for file, prediction in results:
        if isinstance(prediction, ImageError):
            words = str(prediction)
            bad.append(words if str(file) in words else f"{file}: {words}")
        else:
            yield file, prediction
            done.append(file)


# --------------------------------------------------------------------------------------------------
# classes


@dataclass(frozen=True)
class PredictedRow:
    """What is printed of an image. top: the most probable classes, none of a mask.

    confidence: of the task; None where somebody has named it.
    """

    file: str
    task: str
    confidence: float | None
    top: list[tuple[str, float]]


def print_classes(results: Iterable[Named], form: str, top: int, with_task: bool) -> None:
    """Print the most probable classes of each image.

    form: `table`, `csv` or `json`. top: how many classes. with_task: whether to print the task of
    each image, too.
    """
    rows = (
        PredictedRow(
            str(file),
            shown.task,
            shown.task_confidence,
            shown.top(top) if isinstance(shown, Classified) else [],
        )
        for file, shown in results
    )
    {"table": _table, "csv": _csv, "json": _json}[form](rows, with_task)


def _table(rows: Iterable[PredictedRow], with_task: bool) -> None:
    from tabulate import tabulate

    cells = [
        [
            harmless(row.file),
            *([harmless(row.task), f"{row.confidence:.3f}"] if with_task else []),
            *(f"{name} {probability:.3f}" for name, probability in row.top),
        ]
        for row in rows
    ]
    heads = ["image", *(["task", "confidence"] if with_task else [])]
    count = max((len(row) for row in cells), default=0) - len(heads)
    if cells:
        headers = [*heads, *map(str, range(1, count + 1))]
        print(tabulate(cells, headers=headers, disable_numparse=True))


def _csv(rows: Iterable[PredictedRow], with_task: bool) -> None:
    _print_utf8()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    heads = ["image", *(["task", "confidence"] if with_task else [])]
    writer.writerow([*heads, "rank", "class", "probability"])
    for row in rows:
        own = [row.file, *([row.task, f"{row.confidence:.6f}"] if with_task else [])]
        for rank, (name, probability) in enumerate(row.top, 1):
            writer.writerow([*own, rank, name, f"{probability:.6f}"])
        if not row.top:
            writer.writerow([*own, "", "", ""])


def _json(rows: Iterable[PredictedRow], with_task: bool) -> None:
    found = []
    for row in rows:
        own: dict[str, Any] = {"image": row.file}
        if with_task:
            assert row.confidence is not None
            own |= {"task": row.task, "confidence": round(row.confidence, 6)}
        classes = [{"class": name, "probability": round(value, 6)} for name, value in row.top]
        found.append(own | ({"classes": classes} if classes else {}))
    _print_utf8()
    text = json.dumps(found, indent=1, ensure_ascii=False)
    print("".join(one if one == "\n" or one.isprintable() else _escaped(one) for one in text))


def _print_utf8() -> None:
    """Let programs read what is printed, whatever the terminal's letters are.

    Names of files are printed as they are, whatever bytes they have.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _escaped(letter: str) -> str:
    """Return a character as JSON writes it in ASCII: of a terminal, or a byte that is no UTF-8."""
    return json.dumps(letter)[1:-1]


# --------------------------------------------------------------------------------------------------
# masks


class Masks:
    """A folder that gets masks and overlays of images.

    `<name>.mask.png` has indices of classes, `<name>.overlay.png` a legend. files: the name of each
    image, as of `files_of`. bad: what cannot be written is added to it. say: where two images have
    one name, or one is too long, it is told which files are whose. count: of the images whose masks
    have been written.
    """

    def __init__(
        self, folder: Path, files: Mapping[Path, Path], bad: list[str], say: Callable[[str], None]
    ) -> None:
        self.count = 0
        self._folder, self._files, self._bad, self._say = folder, files, bad, say
        self._names = _names(files)

    def written(self, results: Iterable[Named]) -> Iterator[Named]:
        """Yield results, and write the masks and overlays of those that are masks before.

        Those that cannot be written are left out.
        """
        for file, prediction in results:
            if not isinstance(prediction, Segmented) or self._write(file, prediction):
                yield file, prediction

    def _write(self, file: Path, found: Segmented) -> bool:
        """Return whether the mask of an image could be written."""
        colours = (class_colours(len(found.classes)) * 255).round().astype(np.uint8)
        name = self._names[file]
        try:
            _save(self._folder / f"{name}.mask.png", _with_palette(found.mask, colours))
            _save(
                self._folder / f"{name}.overlay.png",
                _overlay(file, found.mask, found.classes, colours),
            )
        except (ImageError, OSError) as error:
            output = getattr(error, "filename", None)  # it may be this, and not the image
            where = f"{finished_path(Path(output))}: " if output is not None else ""
            self._bad.append(f"{file}: {where}{getattr(error, 'strerror', None) or error}")
            return False
        if name != _bare(self._files[file]):
            self._say(harmless(f"{file}: {self._folder / name}.mask.png"))
        self.count += 1
        return True


def _names(files: Mapping[Path, Path]) -> dict[Path, Path]:
    """Return the name of the outputs of each file, without an ending.

    It is that of the file, cut where outputs would have names that are too long, with a number
    behind it where another one has it already.
    """
    names: dict[Path, Path] = {}
    taken: set[Path] = set()
    for file, called in files.items():
        name, number = _cut(_bare(called)), 1
        while name in taken:
            number += 1
            name = _cut(_bare(called), f"-{number}")
        names[file] = name
        taken.add(name)
    return names


def _bare(called: Path) -> Path:
    """Return a name without the ending of an image; other dots are a part of the name."""
    return called.with_suffix("") if called.suffix.lower() in IMAGE_SUFFIXES else called


def _cut(name: Path, number: str = "") -> Path:
    """Return a name with a number behind it, cut so that the names of outputs are not too long."""
    longest = unfinished_path(Path(f"{number}{max(_MADE, key=len)}"))
    room = _LONGEST_NAME - len(longest.name)
    return name.with_name(os.fsdecode(os.fsencode(name.name)[:room]) + number)


def _with_palette(mask: np.ndarray, colours: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(colours.tobytes())
    return image


def _overlay(
    file: Path, mask: np.ndarray, classes: Sequence[str], colours: np.ndarray
) -> Image.Image:
    """Return the image under the colours of its classes, above a legend of those that it shows.

    mask: [H, W]. colours: uint8 [classes, 3]. Large images are made smaller.
    """
    counts = np.zeros(256, np.int64)
    for rows in np.array_split(mask, 1 + mask.size // _COUNTED):
        counts += np.bincount(rows.ravel(), minlength=256)
    present = np.flatnonzero(counts)
    scale = min(1, _LARGEST / max(mask.shape))
    size = tuple(max(1, round(side * scale)) for side in mask.shape)
    pixels, small = made_small(file, size), resized_mask(mask, size)
    picture = (overlaid(visible(pixels), small, colours / 255) * 255).round().astype(np.uint8)
    em = max(12, picture.shape[1] // 64)  # as large as letters of a figure of this width
    font, line = _font(em), em * 3 // 2
    lines = [
        f"{share:.1%}  {shortened(classes[int(label)], _LONGEST)}"
        f"{'' if label else ' (not painted)'}"
        for label, share in zip(present, counts[present] / mask.size, strict=True)
    ]
    width = max(picture.shape[1], 3 * em + int(max(map(font.getlength, lines))))
    whole = Image.new("RGB", (width, picture.shape[0] + line * len(present) + em // 2), "white")
    whole.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(whole)
    for row, (label, words) in enumerate(zip(present, lines, strict=True)):
        top = picture.shape[0] + em // 3 + row * line
        box = (em // 2, top + em // 6, em // 2 + em, top + em // 6 + em)
        fill = tuple(map(int, colours[label])) if label else "white"
        draw.rectangle(box, fill=fill, outline="black")
        draw.text((2 * em, top), words, fill="black", font=font)
    return whole


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans: Pillow's own font has few letters beyond English ones."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _save(path: Path, image: Image.Image) -> None:
    with written(path) as beside:
        image.save(beside, format="PNG")
