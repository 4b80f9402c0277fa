"""Snakemake in a process that imports it, and then waits for the word to run.

    python -m acll.cli.waiting PIPE ARGUMENT…

So Snakemake is imported while the configuration is checked. PIPE: the number of an open file. A
byte in it is the word; where it is closed without one, the process ends, and has done nothing.
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

WORKFLOW_PROFILE = "Using workflow specific profile "


def main() -> None:
    """Wait, and run Snakemake."""
    pipe = int(sys.argv[1])
    told = os.read(pipe, 1)
    os.close(pipe)
    if told:
        sys.exit(0 if run_snakemake(sys.argv[2:]) else 1)


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
    news to anyone.
    """
    said, hidden = io.StringIO(), None
    try:
        with contextlib.redirect_stderr(said):
            parser, parsed = snakemake.cli.parse_args(list(arguments))
        if parsed.workflow_profile is None:
            hidden = WORKFLOW_PROFILE
    finally:
        for line in said.getvalue().splitlines(keepends=True):
            if hidden is None or not line.startswith(hidden):
                sys.stderr.write(line)
    return parser, parsed


if __name__ == "__main__":
    main()
