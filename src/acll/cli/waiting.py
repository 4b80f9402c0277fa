"""Snakemake in a process that imports it, and then waits for the word to run.

    python -m acll.cli.waiting PIPE PARENT ARGUMENT…

So Snakemake is imported while the configuration is checked. PIPE: the number of an open file. A
byte in it is the word; where it is closed without one, the process ends, and has done nothing.
PARENT: the number of the process that has started this one.
"""

import contextlib
import io
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

import snakemake.cli
from snakemake.exceptions import print_exception

import acll.sharing.planned  # noqa: F401 - which the Snakefile needs
from acll.processes import die_with_parent

WORKFLOW_PROFILE = "Using workflow specific profile "
_REFUSED = ": error: "  # stands before the reason, after a page of what could be typed


def main() -> None:
    """Wait, and run Snakemake."""
    pipe, parent, *arguments = sys.argv[1:]
    die_with_parent()  # who kills the run means all of it; its jobs see that it is gone
    if os.getppid() != int(parent):  # it was killed before that
        sys.exit(1)
    told = os.read(int(pipe), 1)
    os.close(int(pipe))
    if told:
        sys.exit(0 if run_snakemake(arguments) else 1)


def run_snakemake(arguments: Sequence[str]) -> bool:
    """Run Snakemake as its `main` does, without its limit of 100 jobs a second.

    With a limit, each look of the scheduler asks for another one a second later, and each job that
    ends for one more. So the looks a second grow with the jobs done: hundreds of short jobs cost a
    core. Another limit, which a profile sets, is kept.

    Nor does it import pandas, which takes half a second, to see that no parameter is a table.
    """
    with contextlib.suppress(ImportError, AttributeError):  # its own names, which may change
        from snakemake.persistence import PersistenceBase

        PersistenceBase._serialize_param_pandas = PersistenceBase._serialize_param_builtin
    try:
        parser, parsed = _parsed(arguments)
        limit = parsed.max_jobs_per_timespan
        default = type(limit).parse_choice(parser.get_default("max_jobs_per_timespan"))
        if vars(limit) == vars(default):
            parsed.max_jobs_per_timespan = None
        return bool(snakemake.cli.args_to_api(parsed, parser))
    except Exception as error:  # as Snakemake's own `main`
        print_exception(error)
        return False


def _parsed(arguments: Sequence[str]) -> tuple[ArgumentParser, Namespace]:
    """Return Snakemake's parser, and what it makes of the arguments and of profiles.

    What it says of them is shown, but not that it uses the profile beside our Snakefile: that is no
    news to anyone. Of what it refuses the reason is shown alone.
    """
    said, hides = io.StringIO(), False
    try:
        with contextlib.redirect_stderr(said):
            parser, parsed = snakemake.cli.parse_args(list(arguments))
        hides = parsed.workflow_profile is None
    except SystemExit:
        text = said.getvalue()
        _, found, reason = text.rpartition(_REFUSED)
        said = io.StringIO(f"error: {_places(arguments)}{reason}" if found else text)
        raise
    finally:
        for line in said.getvalue().splitlines(keepends=True):
            if not (hides and line.startswith(WORKFLOW_PROFILE)):
                sys.stderr.write(line)
    return parser, parsed


def _places(arguments: Sequence[str]) -> str:
    """Return where a person may have written what Snakemake refuses."""
    profiles = [one.partition("=")[2] for one in arguments if one.startswith("--profile=")]
    return "".join(f"{profile}/config.yaml: " for profile in profiles)


if __name__ == "__main__":
    main()
