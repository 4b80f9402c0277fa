"""Times of results mean nothing: before a run they are made to say what the content says.

Snakemake looks at the content of an input where it is newer than an output, and nowhere else. A
clock that was set back, or a file that was copied with its time, would hide a change from it.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from acll.errors import UserError
from acll.files import sha256
from acll.plan import Job
from acll.sharing.records import read_record, with_digests

LONG_AGO = 1.0  # a second after 1970; Snakemake takes 0 for no time at all


def settle_times(results: Path, jobs: Sequence[Job]) -> None:
    """Make outputs that were made from another input than there is older than all inputs.

    So Snakemake sees the change. What is younger than now, and as its job wrote it, gets the time
    of now: Snakemake would read it in each run. In a folder that may only be read nothing is done.

    jobs: those that others need first. Raises UserError where a file of somebody else hinders that.
    """
    now = time.time()
    for job, digests in with_digests(results, jobs):
        for output in job.all_outputs:
            path = results / output
            record = read_record(results, output)
            other = None if record is None else record.other_input(digests)
            try:
                if other is not None:
                    os.utime(results / other)
                    os.utime(path, (LONG_AGO, LONG_AGO))
                elif path.stat().st_mtime > now and sha256(path) == digests.get(output):
                    os.utime(path)
            except FileNotFoundError:
                pass  # it will be made
            except OSError as error:
                if other is not None and os.access(path.parent, os.W_OK):
                    raise UserError(
                        f"{path}: was made from another {other}, and cannot be marked as such "
                        f"({error.strerror}); remove it"
                    ) from None
