"""The plan of a configuration in a checkout, with the identities of its data there."""

from dataclasses import dataclass
from pathlib import Path

from acll.config.checks import load_configuration
from acll.config.configuration import Configuration
from acll.data.identity import FINGERPRINTS
from acll.data.root import data_root
from acll.plan import Job, plan
from acll.sharing.raw import raw_identities, weight_identities


@dataclass(frozen=True)
class Planned:
    """A configuration and its jobs. data_root: where its raw data are."""

    configuration: Configuration
    jobs: list[Job]
    data_root: Path


def planned(path: Path, root: Path, results: Path) -> Planned:
    """Return the plan of a configuration file. root: the checkout. results: where the results lie.

    Raises UserError where the configuration cannot be run, or raw data are neither here nor
    recorded.
    """
    configuration = load_configuration(path)
    data = (root / data_root(configuration.data_root)).resolve()
    raw = raw_identities(configuration, configuration.learned(), data, results, root / FINGERPRINTS)
    weights = weight_identities(configuration, data, results)
    return Planned(configuration, plan(configuration, raw, weights), data)


def jobs_of(root: Path, name: str) -> list[Job]:
    """Return the jobs of `config/<name>.yaml` in the checkout `root`, those that others need first.

    Raises UserError as `planned` does.
    """
    return planned(root / "config" / f"{name}.yaml", root, root / "results" / name).jobs
