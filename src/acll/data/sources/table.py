"""Samples that a table names, for data that are laid out in any other way."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from acll.data.errors import DataError
from acll.data.faults import DataFault, some
from acll.data.image_files import manifest_of_files, unused
from acll.data.manifest import Manifest, Sample, group_of
from acll.data.names import alike, folded, is_split_column, split_meant, stripped
from acll.data.storage import SPLITS, Folder, absent, missing
from acll.data.task import RawData
from acll.errors import quoted
from acll.settings import Kind, Names


class Table(RawData):
    """A table with a row for each image.

    Its columns are `path`, `label` (for segmentation `mask`), and `split`, which may be absent.
    Paths are relative to the table.
    """

    source: Literal["table"] = Field(description="`table`")
    kind: Kind = Field("classification", description="`classification` or `segmentation`")
    path: str = Field(description="the table, a .csv or .parquet file below `data_root`")
    classes: Names | None = Field(
        None,
        description="segmentation: names of the classes, in order of index; else those of the "
        "column `label`",
    )

    @model_validator(mode="after")
    def _classes_of_masks(self) -> Self:
        if self.kind == "segmentation" and self.classes is None:
            raise ValueError("segmentation needs `classes`, in order of index")
        return self

    in_one_place: ClassVar[bool] = False  # the images that it names may lie elsewhere

    def manifest(self, root: Path) -> Manifest:
        """Return the samples. Raises DataError."""
        return _manifest(self, root)

    def raw_files(self, root: Path) -> list[Path]:
        """Return the files that are read. Raises DataError."""
        return _raw_files(self, root)


Row = dict[str, str]


def _raw_files(task: Table, root: Path) -> list[Path]:
    """Return the table and all files that it names and that are there. Raises DataError."""
    path = root / task.path
    columns = ["path", "mask"] if task.kind == "segmentation" else ["path"]
    names = {row[column] for row in rows_of(task, root) for column in columns}
    return [path, *(path.parent / name for name in sorted(names) if Folder(path.parent).has(name))]


def _manifest(task: Table, root: Path) -> Manifest:
    """Return the samples of a table. Raises DataError where it is not a table of samples."""
    path = root / task.path
    rows = rows_of(task, root)
    masks = task.kind == "segmentation"
    classes = task.classes or _in_order({row["label"] for row in rows})
    unknown = [] if masks else sorted({row["label"] for row in rows} - set(classes))
    if unknown:
        near = [group for group in alike([*classes, *unknown]) if set(group) & set(unknown)]
        hint = f" (there are names like these: {', '.join(map(ascii, near[0]))})" if near else ""
        raise DataError(f"{path}: labels that are not among `classes`: {some(unknown)}{hint}")
    numbers = [] if masks else _one_number({row["label"] for row in rows})
    if numbers:
        raise DataError(f"{path}: labels that are one number: {', '.join(numbers[0])}")
    if len(classes) < 2:
        raise DataError(
            f"{path}: at least two labels are expected; there is {some(classes) or 'none'}"
        )
    index = {name: number for number, name in enumerate(classes)}
    storage = Folder(path.parent)
    samples, faults, used = [], [], []
    for row in sorted(rows, key=lambda row: (SPLITS.index(row["split"]), row["path"])):
        named = [row["path"], row["mask"]] if masks else [row["path"]]
        lacking = [name for name in named if not storage.has(name)]
        used += [name for name in named if name not in lacking]
        if lacking:
            faults.append(absent(storage, lacking[0], path.name))
            continue
        group = group_of(row["path"], task.group)
        label, mask = (0, row["mask"]) if masks else (index[row["label"]], None)
        samples.append(
            Sample(row["path"], row["split"], row["path"], label=label, mask=mask, group=group)
        )
    splits = {row["split"] for row in rows}
    warnings = [
        *_doubtful_columns(path, rows),
        *_tables_beside(path),
        *unused(storage, *_beside(path, used), used, f"{path.name} does not name it"),
    ]
    return manifest_of_files(
        storage, task.kind, list(classes), sorted(splits), samples, faults, warnings
    )


def rows_of(task: Table, root: Path) -> list[Row]:
    """Return the rows as text, each with a split. Raises DataError.

    Blanks at the ends of a cell are no part of it. Without a given split, each row has `train`.
    """
    path = root / task.path
    header, cells = _cells_of(path)
    columns = ["path", "mask" if task.kind == "segmentation" else "label"]
    _refuse_header(path, header, columns)
    rows, without_split = [], []
    for number, values in cells.items():
        if len(values) != len(header):
            raise DataError(
                f"{path}, row {number}: has another number of values ({len(values)}) than the "
                f"first row ({len(header)}); a value with a comma has to be in quotes: "
                f"{quoted(','.join(values))}"
            )
        row = {"split": "", **dict(zip(header, values))}
        if not row["split"]:
            without_split.append(number)
            row["split"] = "train"
        fault = _fault(row, columns)
        if fault:
            raise DataError(f"{path}, row {number}: {fault}")
        row |= {
            column: PurePosixPath(row[column]).as_posix()
            for column in {"path", "mask"} & set(columns)
        }
        rows.append(row)
    _refuse_twice(path, rows)
    if 0 < len(without_split) < len(rows):
        raise DataError(
            f"{path}, row {without_split[0]}: has no split ({len(without_split)} of {len(rows)} "
            f"rows have none); write one of {', '.join(SPLITS)} in each row, or in none"
        )
    if without_split:
        _refuse_splits_elsewhere(path, rows, {*columns, "split"})
    return rows


def _cells_of(path: Path) -> tuple[list[str], "Cells"]:
    """Return the names of the columns, and the rows below. Raises DataError."""
    if path.is_dir():
        raise DataError(f"{path}: a folder; a table is a .csv or .parquet file")
    if not path.is_file():
        raise missing(path)
    try:
        _refuse_others(path)
        header, cells = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table: {error}") from None
    if not cells:
        raise DataError(f"{path}: has no rows")
    return header, cells


def _refuse_header(path: Path, header: list[str], columns: list[str]) -> None:
    """Raise DataError where the names of the columns are not those that are needed."""
    lacking = [column for column in columns if column not in header]
    if lacking:
        raise DataError(
            f"{path}: has no column {' or '.join(lacking)} (there are: {', '.join(header)})"
            f"{_separator(header)}"
        )
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise DataError(f"{path}: has several columns of one name: {some(twice)}")
    near = [name for name in header if is_split_column(name) and name != "split"]
    if near and "split" not in header:
        raise DataError(f"{path}: has a column `{near[0]}`; did you mean `split`?")


def _refuse_twice(path: Path, rows: list[Row]) -> None:
    """Raise DataError where an image has two rows."""
    counts = Counter(row["path"] for row in rows)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise DataError(f"{path}: images that stand there twice: {some(twice)}")


def _refuse_splits_elsewhere(path: Path, rows: list[Row], known: set[str]) -> None:
    """Raise DataError where a column that is not read holds the names of splits, two at least."""
    for column in sorted(rows[0].keys() - known):
        values = sorted({row[column] for row in rows} - {""})
        meant = {split_meant(value) for value in values}
        if len(meant) > 1 and None not in meant:
            raise DataError(
                f"{path}: has a column `{column}` with {some(values)}, but none called `split`; "
                "rename it `split`, or remove it"
            )


_SETS = ("set", "subset", "partition", "fold")  # columns that often say the split


def _doubtful_columns(path: Path, rows: list[Row]) -> list[DataFault]:
    """Return a fault for each column that may say the split, where no other does."""
    if any(row["split"] != "train" for row in rows):
        return []
    return [
        DataFault(
            "column",
            path.name,
            f"its column `{column}` is not read; if it says the split, rename it `split` and write "
            f"{', '.join(SPLITS)} there",
        )
        for column in rows[0]
        if folded(column).removesuffix("s") in _SETS
    ]


def _tables_beside(path: Path) -> list[DataFault]:
    """Return a fault for each table beside this one that is called as a split."""
    others = (
        file
        for file in sorted(path.parent.iterdir())
        if file.name != path.name and not file.name.startswith(".")
    )
    return [
        DataFault(
            "unused",
            file.name,
            f"a table beside {path.name}, which is not read; a column `split` lets one table hold "
            "the rows of all splits",
        )
        for file in others
        if file.suffix.lower() in (".csv", ".parquet") and split_meant(file.stem) is not None
    ]


def _fault(row: Row, columns: list[str]) -> str | None:
    """Return what is wrong with a row, in words."""
    empty = [column for column in columns if not row[column]]
    if empty:
        return f"the column {empty[0]} is empty"
    if row["split"] not in SPLITS:
        meant = split_meant(row["split"])
        hint = f" (did you mean {meant}?)" if meant else ""
        return f"split = {row['split']!r}: must be one of {', '.join(SPLITS)}{hint}"
    for column in sorted({"path", "mask"} & set(columns)):
        if "\n" in row[column]:
            return f"{column} = {row[column]!r}: a name of two lines"
        if PurePosixPath(row[column]).is_absolute() or ".." in PurePosixPath(row[column]).parts:
            return f"{column} = {row[column]!r}: must lie beside the table or below"
    return None


Cells = dict[int, list[str]]  # the values of each row, by its number in a spreadsheet

# how files begin that are called tables, and what they are
_BEGINNINGS = {
    b"PK\x03\x04": "a workbook of Excel or another archive; save its sheet as a .csv file",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel; save its sheet as a .csv file",
    b"PAR1": "a Parquet file; let its name end with .parquet",
    b"ARROW1": "a Feather file; write it as .parquet or .csv",
    b"\x1f\x8b": "compressed; unpack it",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}


def _refuse_others(path: Path) -> None:
    """Raise ValueError for a file that is no text, or in another encoding than UTF-8."""
    if path.suffix.lower() == ".parquet":
        return
    with path.open("rb") as file:
        begin = file.read(2**12)
    for beginning, words in _BEGINNINGS.items():
        if begin.startswith(beginning):
            raise ValueError(f"it is {words}")
    if b"\0" in begin:
        raise ValueError("it has NUL bytes, as UTF-16 and files that are no text have")


def _csv(path: Path) -> tuple[list[str], Cells]:
    """Return the names of the columns, and the rows below that are not empty."""
    cells: Cells = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True, skipinitialspace=True)
        try:
            for number, row in enumerate(rows, 1):
                if row:
                    cells[number] = [stripped(value) for value in row]
        except UnicodeDecodeError as error:
            odd = error.object[error.start]
            raise ValueError(f"it is not UTF-8 (it has a byte {odd:#04x}); save it so") from None
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num}: {error}") from None
    header = cells.pop(min(cells)) if cells else []
    return header, cells


def _separator(header: list[str]) -> str:
    """Return in words what separates columns, if it is no comma."""
    names = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas, each line in quotes"}
    for letter, words in names.items():
        if len(header) <= 2 and any(letter in name for name in header):
            return f"; its columns are separated by {words}: write it with commas"
    return ""


def _parquet(path: Path) -> tuple[list[str], Cells]:
    """Return the names of the columns, and the rows as text. Raises ValueError."""
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except ArrowException as error:
        raise ValueError(str(error)) from None
    header = [stripped(name) for name in table.column_names]
    needed = ("path", "label", "mask", "split")
    columns = [
        [_text(value, name) for value in column.to_pylist()]
        if name in needed or _is_text(column.type)
        else [""] * len(column)
        for name, column in zip(header, table.columns)
    ]
    return header, dict(enumerate(map(list, zip(*columns)), 2))


def _is_text(of_column: Any) -> bool:
    """Return whether values of a type of Arrow are text, which may be kept as categories."""
    from pyarrow import types

    values = of_column.value_type if types.is_dictionary(of_column) else of_column
    return bool(types.is_string(values) or types.is_large_string(values))


def _text(value: object, column: str) -> str:
    """Return a value of a Parquet file as text; empty where there is none. Raises ValueError."""
    if value is None or value != value:  # what is not a number is unlike itself
        return ""
    if isinstance(value, bytes | list | dict):
        raise ValueError(f"its column {column} holds {type(value).__name__}, not text or numbers")
    return stripped(str(value))


def _one_number(labels: set[str]) -> list[list[str]]:
    """Return the groups of labels that are one number, and not written as whole numbers alone."""
    groups: dict[Decimal, list[str]] = defaultdict(list)
    for label in sorted(labels):
        if re.fullmatch(r"[+-]?\d+(\.\d*)?", label):
            groups[Decimal(label)].append(label)
    return [
        group
        for group in groups.values()
        if len(group) > 1 and not all(label.isdecimal() for label in group)
    ]


def _beside(path: Path, used: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the files that lie in the folders of those that a table names, and hidden ones."""
    folders = {PurePosixPath(name).parent for name in used}
    found = sorted(
        (folder / file.name)
        for folder in folders
        for file in (path.parent / folder).iterdir()
        if not file.is_dir() and not file.name.startswith("._")  # which macOS adds
    )
    hidden = [file.as_posix() for file in found if file.name.startswith(".")]
    return [file.as_posix() for file in found if not file.name.startswith(".")], hidden


def _in_order(labels: set[str]) -> list[str]:
    """Return labels sorted, as numbers where all are."""
    if all(label.isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)
