"""Samples that a table names, for data that are laid out in any other way."""

import csv
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from acll.data.errors import DataError
from acll.data.faults import DataFault, some
from acll.data.image_files import manifest_of_files
from acll.data.manifest import Manifest, Sample, group_of
from acll.data.storage import SPLITS, Folder, missing
from acll.data.task import RawData
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
    return [path, *(file for name in sorted(names) if (file := path.parent / name).is_file())]


def _manifest(task: Table, root: Path) -> Manifest:
    """Return the samples of a table. Raises DataError where it is not a table of samples."""
    path = root / task.path
    rows = rows_of(task, root)
    masks = task.kind == "segmentation"
    classes = task.classes or _in_order({row["label"] for row in rows})
    unknown = [] if masks else sorted({row["label"] for row in rows} - set(classes))
    if unknown:
        raise DataError(f"{path}: labels that are not among `classes`: {some(unknown)}")
    if len(classes) < 2:
        raise DataError(
            f"{path}: at least two labels are expected; there is {some(classes) or 'none'}"
        )
    index = {name: number for number, name in enumerate(classes)}
    samples, faults = [], []
    for row in sorted(rows, key=lambda row: (SPLITS.index(row["split"]), row["path"])):
        named = [row["path"], row["mask"]] if masks else [row["path"]]
        absent = [name for name in named if not (path.parent / name).is_file()]
        if absent:
            faults.append(DataFault("missing", absent[0], f"named in {path.name}, but not there"))
            continue
        group = group_of(row["path"], task.group)
        label, mask = (0, row["mask"]) if masks else (index[row["label"]], None)
        samples.append(
            Sample(row["path"], row["split"], row["path"], label=label, mask=mask, group=group)
        )
    splits = {row["split"] for row in rows}
    return manifest_of_files(
        Folder(path.parent), task.kind, list(classes), sorted(splits), samples, faults
    )


def rows_of(task: Table, root: Path) -> list[Row]:
    """Return the rows as text, each with a split. Raises DataError."""
    path = root / task.path
    if path.is_dir():
        raise DataError(f"{path}: a folder; a table is a .csv or .parquet file")
    if not path.is_file():
        raise missing(path)
    try:
        rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table: {error}") from None
    if not rows:
        raise DataError(f"{path}: has no rows")
    columns = ["path", "mask" if task.kind == "segmentation" else "label"]
    lacking = [column for column in columns if column not in rows[0]]
    if lacking:
        raise DataError(
            f"{path}: has no column {' or '.join(lacking)} (there are: {', '.join(rows[0])})"
        )
    for number, row in enumerate(rows, 2):
        row["split"] = row.get("split") or "train"
        fault = _fault(row, columns)
        if fault:
            raise DataError(f"{path}, row {number}: {fault}")
        row |= {
            column: PurePosixPath(row[column]).as_posix()
            for column in {"path", "mask"} & set(columns)
        }
    counts = Counter(row["path"] for row in rows)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise DataError(f"{path}: images that stand there twice: {some(twice)}")
    return rows


def _fault(row: Row, columns: list[str]) -> str | None:
    """Return what is wrong with a row, in words."""
    empty = [column for column in columns if not row[column]]
    if empty:
        return f"the column {empty[0]} is empty"
    if row["split"] not in SPLITS:
        return f"split = {row['split']!r}: must be one of {', '.join(SPLITS)}"
    for column in sorted({"path", "mask"} & set(columns)):
        if "\n" in row[column]:
            return f"{column} = {row[column]!r}: a name of two lines"
        if PurePosixPath(row[column]).is_absolute() or ".." in PurePosixPath(row[column]).parts:
            return f"{column} = {row[column]!r}: must lie beside the table or below"
    return None


def _csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        return [
            {key: value or "" for key, value in row.items() if isinstance(key, str)} for row in rows
        ]


def _parquet(path: Path) -> list[Row]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise ValueError(str(error)) from None
    return [
        {key: "" if value is None else str(value) for key, value in row.items()} for row in table
    ]


def _in_order(labels: set[str]) -> list[str]:
    """Return labels sorted, as numbers where all are."""
    if all(label.isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)
