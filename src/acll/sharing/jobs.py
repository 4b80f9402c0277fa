"""The jobs of a configuration, as Snakemake lays them out from this checkout: nothing is run and nothing is judged."""

import contextlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acll.errors import UserError


@dataclass(frozen=True)
class Job:
    """One job. Paths are relative to the results."""

    rule: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    digests: str  # the file in which it leaves the digests of its outputs
    others: tuple[str, ...]  # its logs and benchmark
    command: str  # without the values of its parameter
    params: Mapping[str, Any]


def jobs_of(root: Path, name: str) -> list[Job]:
    """The jobs of `config/<name>.yaml` in the checkout `root`, those that others need first.

    Raises UserError where the configuration cannot be run, or raw data are neither here nor recorded.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.exceptions import WorkflowError
    from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

    results = root / "results" / name
    results.mkdir(parents=True, exist_ok=True)
    quiet = OutputSettings(quiet={Quietness.ALL})
    before = dict(os.environ)  # the workflow sets some of it, for its jobs
    try:
        with contextlib.chdir(results), contextlib.redirect_stdout(io.StringIO()), SnakemakeApi(quiet) as api:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(configfiles=[root / "config" / f"{name}.yaml"]),
                snakefile=root / "Snakefile",
                workdir=results,
            )
            workflow.dag().summary()  # lays out the graph, which the public interface does not hand over
            graph = workflow._workflow.dag
            levels = [sorted(level, key=lambda job: list(job.output)) for level in graph.toposorted()]
    except WorkflowError as error:
        raise UserError(str(error)) from None
    finally:
        os.environ.clear()
        os.environ.update(before)
    return [_job(job) for level in levels for job in level if job.output]


def _job(job: Any) -> Job:
    return Job(
        rule=job.rule.name,
        outputs=tuple(map(str, job.output)),
        inputs=tuple(map(str, job.input)),
        digests=str(job.log.digests),
        others=(*(str(path) for path in job.log if str(path) != str(job.log.digests)), str(job.benchmark)),
        command=job.rule.shellcmd,
        params=json.loads(job.params.spec),
    )
