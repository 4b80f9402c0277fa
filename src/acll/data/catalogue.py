"""The source of each task: what it lists, and which files it reads."""

from pathlib import Path

from acll.data.listing import Listing
from acll.settings import AnyTask, Coco, Cub200, Digits, Generated, ImageFolder, MaskFolder, Table, Task, Torchvision


def source_of(task: AnyTask) -> str:
    """What decides which files a task reads: tasks made from one and the same source have it in common."""
    return task.model_dump_json(exclude=set(Task.model_fields))


def list_task(task: AnyTask, root: Path) -> Listing:
    """The samples of a task, before a pixel is read. Raises DataError where its source is not what it should be."""
    match task:
        case Digits():
            from acll.data.sources.digits import list_digits

            return list_digits(task)
        case Generated():
            from acll.data.sources.generated import list_generated

            return list_generated(task)
        case ImageFolder():
            from acll.data.sources.folders import list_images

            return list_images(task, root)
        case MaskFolder():
            from acll.data.sources.folders import list_masks

            return list_masks(task, root)
        case Table():
            from acll.data.sources.tables import list_table

            return list_table(task, root)
        case Coco():
            from acll.data.sources.coco import list_coco

            return list_coco(task, root)
        case Cub200():
            from acll.data.sources.cub import list_birds

            return list_birds(task, root)
        case Torchvision():
            from acll.data.sources.torchvision_sets import list_torchvision

            return list_torchvision(task, root)


def raw_files(task: AnyTask, root: Path) -> list[Path]:
    """All files that a task reads, sorted; none for a source without files. Raises DataError where they are missing."""
    match task:
        case Digits() | Generated():
            return []
        case ImageFolder() | MaskFolder():
            from acll.data.sources import folders

            return folders.raw_files(task, root)
        case Table():
            from acll.data.sources import tables

            return tables.raw_files(task, root)
        case Coco():
            from acll.data.sources import coco

            return coco.raw_files(task, root)
        case Cub200():
            from acll.data.sources import cub

            return cub.raw_files(task, root)
        case Torchvision():
            from acll.data.sources import torchvision_sets

            return torchvision_sets.raw_files(task, root)
