"""snakemake --lint, less the findings that are switched off here, each with its reason."""

import re
import subprocess
import sys
import tempfile

SWITCHED_OFF = {
    "Specify a conda environment or container for each rule": "one hash-locked .venv serves "
    "all rules, see README",
    "Environment variable (PYTHONPATH|PATH|PYTHONWARNINGS) used": "the workflow sets them "
    "itself, for its jobs",
    "Environment variable ACLL_DATA_ROOT used": "optional: the configuration names a folder "
    "where it is not set",
    "Mixed rules and functions in same snakefile": "Snakemake takes `wildcard_constraints` of "
    "common.smk for a rule",
}


def main() -> None:
    """Print what is left of the findings; exit code 1 if anything is."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "snakemake",
            "--lint",
            "--configfile",
            "config/demo.yaml",
            "--directory",
            f"{folder}/demo",
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    place, left = "", []
    lines = (result.stdout + result.stderr).splitlines()
    for line in lines:
        if line.startswith("Lints for "):
            place = line
        elif line.startswith("    * ") and not any(
            re.search(pattern, line) for pattern in SWITCHED_OFF
        ):
            left.append(f"{place}\n{line}")
    if not any(line.startswith("Lints for ") or "Congratulations" in line for line in lines):
        left.append(f"snakemake --lint did not run:\n{result.stdout}{result.stderr}")
    print("\n".join(left) or "snakemake --lint: nothing but what is switched off with a reason")
    sys.exit(bool(left))


if __name__ == "__main__":
    main()
