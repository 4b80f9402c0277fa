"""Whether all images and masks of a configuration can be used, before anything is run."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from acll.config.configuration import Configuration
from acll.data.faults import noticed_lines
from acll.data.preparation import prepare
from acll.data.root import data_root
from acll.data.splits import too_few
from acll.errors import UserError
from acll.parameters.prepare import prepared_settings

_FOLDER = Path(".cache/check")  # of the reports of faults, below the checkout


def tasks_of_files(configuration: Configuration) -> list[str]:
    """Return the tasks whose images lie in files, less the variants of others."""
    made_from = configuration.made_from
    tasks = configuration.tasks.items()
    return [name for name, task in tasks if task.from_files and name not in made_from]


def decode_images(checkout: Path, configuration: Configuration) -> Iterator[tuple[str, bool]]:
    """Prepare each task of files as a run would, and throw away what comes out.

    Yield lines, each with whether it is a fault.
    """
    root = checkout / data_root(configuration.data_root)
    reports = _folder_of_reports(checkout)
    yield from _decoded(reports, root, configuration)
    with contextlib.suppress(OSError):
        reports.rmdir()  # nothing has to be reported


def _decoded(reports: Path, root: Path, configuration: Configuration) -> Iterator[tuple[str, bool]]:
    channels = configuration.channels_by_task()
    told: set[str] = set()  # of sources that several tasks are made of
    for name in tasks_of_files(configuration):
        task = prepared_settings(configuration.tasks[name])
        if not (root / task.path).exists():
            yield f"{name}: {root / task.path}: not here, so its images cannot be decoded", True
            continue
        report = reports / f"{configuration.name}.{name}.faults.csv"
        # beside the reports: the folder of temporary files may be in memory
        with tempfile.TemporaryDirectory(dir=reports) as folder:
            train, test = Path(folder) / "train.safetensors", Path(folder) / "test.safetensors"
            processes = len(os.sched_getaffinity(0))
            try:
                found = prepare(
                    name, task, root, train, test, report, processes, channels.get(name, ())
                )
            except UserError as error:
                if str(error) not in told:
                    yield from ((line, True) for line in str(error).splitlines())
                told.add(str(error))
                continue
        yield f"{name}: {sum(found['samples'].values())} images decoded", False
        yield from ((line, False) for line in noticed_lines(name, found, str(report)))
        for variant, source in configuration.made_from.items():
            wanted = configuration.tasks[variant].train_samples
            there = found["samples"]["train"]
            if source == name and wanted is not None and wanted > there:
                yield too_few(variant, wanted, there), True


def _folder_of_reports(checkout: Path) -> Path:
    """Return the folder of reports, or a temporary one where the checkout may only be read."""
    folder = checkout / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="acll-check-"))
