"""Repair: damaged and missing results come from the DVC cache or remote, or are made again."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from acll.errors import UserError
from acll.lock import held
from acll.plan import Job
from acll.progress import progress_bar
from acll.sharing import records, transfer
from acll.sharing.place import snakefile_of
from acll.sharing.planned import jobs_of
from acll.sharing.verify import ResultFault, judged, result_faults


def verified(root: Path, name: str) -> tuple[list[Job], list[ResultFault], list[ResultFault]]:
    """Return (the jobs of a configuration, the faults of their outputs, those that are kept).

    Raw data are read anew, whatever their times say.
    """
    jobs = jobs_of(root, name, anew=True)
    seen = progress_bar(jobs, f"verifying results/{name}", unit="job")
    found = judged(root / "results" / name, seen)
    kept = [one for one in found if one.kind == "kept"]
    return jobs, [one for one in found if one.kind != "kept"], kept


def repair_results(root: Path, name: str, jobs: Sequence[Job]) -> tuple[int, int]:
    """Return (how many files were put back, how many outputs were made again).

    First every file that is missing or damaged is put back as it was recorded. What DVC does not
    have, what has no record and what is unfinished is made again, and nothing else: it comes back
    bit for bit, so what was made from it stands. What is stale is left to a run. Raises UserError
    where something cannot be made.
    """
    results = root / "results" / name
    with held(results):
        # records and digests first: they say what the outputs have to be
        about = {job.digests for job in jobs}
        for job in jobs:
            about |= {str(records.record_path(output)) for output in job.all_outputs}
        absent: dict[str, str | None] = {
            path: None for path in about if not (results / path).exists()
        }
        brought = transfer.restore_files(root, name, absent)
        broken = {
            fault.output
            for fault in result_faults(results, jobs)
            if fault.kind in ("missing", "damaged")
        }
        digests = [records.read_digests(results / job.digests) for job in jobs]
        wanted = {output: one[output] for one in digests for output in broken & one.keys()}
        brought |= transfer.restore_files(root, name, wanted)
        again = [
            fault.output
            for fault in result_faults(results, jobs)
            if fault.kind in ("missing", "unfinished", "damaged", "unrecorded")
        ]
    if again:
        gone = transfer.missing_folder(root)
        if gone is not None:
            print(f"the remote {gone} is not there (not mounted?): what it may have is made again")
        _snakemake(root, name, again)
    return len(brought), len(again)


def _snakemake(root: Path, name: str, outputs: Sequence[str]) -> None:
    configuration, results = root / "config" / f"{name}.yaml", root / "results" / name
    command = ["snakemake", f"--snakefile={snakefile_of(root)}", f"--configfile={configuration}"]
    command += [f"--directory={results}", "--force", "--", *outputs]
    if subprocess.run(command, cwd=root, check=False).returncode:
        raise UserError(
            f"results/{name}: what was damaged or missing could not be made again, see above"
        )
