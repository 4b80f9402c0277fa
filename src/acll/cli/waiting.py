"""Snakemake in a process that imports it, and then waits for the word to run.

    python -m acll.cli.waiting PIPE ARGUMENT…

So Snakemake is imported while the configuration is checked. PIPE: the number of an open file. A
byte in it is the word; where it is closed without one, the process ends, and has done nothing.
"""

import os
import sys

import snakemake.cli

import acll.sharing.planned  # noqa: F401 - which the Snakefile needs


def main() -> None:
    """Wait, and run Snakemake."""
    pipe = int(sys.argv[1])
    told = os.read(pipe, 1)
    os.close(pipe)
    if told:
        snakemake.cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
