"""The plan of a configuration in a checkout, with the identities of its data there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acll.code import remembering
from acll.config.checks import load_configuration
from acll.config.configuration import Configuration
from acll.data.identity import FINGERPRINTS
from acll.data.root import data_root
from acll.errors import UserError
from acll.plan import Job, plan
from acll.sharing.given import open_given
from acll.sharing.raw import raw_identities, weight_identities
from acll.sharing.records import read_record

CODE = Path(".cache/code.json")  # what is known of modules; below the repository


@dataclass(frozen=True)
class Planned:
    """A configuration and its jobs. data_root: where its raw data are."""

    configuration: Configuration
    jobs: list[Job]
    data_root: Path


def planned(path: Path, root: Path, results: Path, anew: bool = False) -> Planned:
    """Return the plan of a configuration file. root: the checkout. results: where the results lie.

    anew: read raw data again, whatever their times say. Raises UserError where the configuration
    cannot be run, or raw data are neither here nor recorded.
    """
    configuration = load_configuration(path)
    data = (root / data_root(configuration.data_root)).resolve()
    configuration = open_given(configuration, data, results)
    tasks, cache = configuration.prepared(), root / FINGERPRINTS
    raw = raw_identities(configuration, tasks, data, results, cache, anew)
    weights = weight_identities(configuration, data, results)
    with remembering(root / CODE):
        jobs = plan(configuration, raw, weights)
    _refuse_channels(configuration, jobs, results)
    return Planned(configuration, jobs, data)


def _refuse_channels(configuration: Configuration, jobs: Sequence[Job], results: Path) -> None:
    """Raise UserError where a network cannot take the images of a task that is prepared already.

    Of other tasks their preparation says so. Both come before anything is trained.
    """
    networks = configuration.channels_by_task()
    faults = []
    for job in jobs:
        if job.rule != "prepare":
            continue
        (summary,) = job.outputs["summary"]
        record = read_record(results, summary)
        if record is None or record.params != json.loads(job.text):
            continue  # it is prepared anew
        try:
            own = json.loads((results / summary).read_text(encoding="utf-8"))["channels"]
        except (OSError, ValueError, KeyError):
            continue
        faults += [
            f"tasks.{job.name}: its images have {own} channels, a network that is to learn it "
            f"takes {count}: set channels: {own} for that network"
            for count in networks[job.name]
            if own not in (1, count)
        ]
    if faults:
        raise UserError("\n".join(faults))


def jobs_of(root: Path, name: str, anew: bool = False) -> list[Job]:
    """Return the jobs of `config/<name>.yaml` in the checkout `root`, those that others need first.

    anew, and what is raised: as of `planned`.
    """
    return planned(root / "config" / f"{name}.yaml", root, root / "results" / name, anew).jobs
