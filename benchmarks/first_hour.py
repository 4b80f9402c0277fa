"""How long the commands take that a newcomer types first.

    python benchmarks/first_hour.py

In a fresh clone of what is committed, with the environment that is installed here: `make run`, once
more, the share of start-up in the time of its jobs (startup.py), and `make test`. Writes
docs/benchmarks/first_hour.csv. Run it on a machine that has nothing else to do.
"""

import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# as a newcomer's shell is: without what changes how Python starts, such as PYTHONDONTWRITEBYTECODE
SHELL = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
OUT = ROOT / "docs/benchmarks/first_hour.csv"


def seconds(folder: Path, *command: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=SHELL, check=True)
    taken = time.perf_counter() - start
    print(f"{' '.join(command)}: {taken:.1f} s", flush=True)
    return taken


def main() -> None:
    rows: list[tuple[str, float, str]] = []
    with tempfile.TemporaryDirectory() as place:
        clone = Path(place) / "acll"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        (clone / ".venv").symlink_to(ROOT / ".venv")
        make = ("make", "--old-file=.venv/installed")
        rows.append(("make run", seconds(clone, *make, "run"), "s"))
        rows.append(("make run, again", seconds(clone, *make, "run"), "s"))
        startup = subprocess.run(
            [sys.executable, "benchmarks/startup.py", "demo", "--share"],
            cwd=clone,
            env=SHELL | {"PYTHONPATH": str(clone / "src")},
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append(("start-up, of the time of jobs", 100 * float(startup.stdout), "%"))
        rows.append(("make test", seconds(clone, *make, "test"), "s"))
    with OUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("what", "value", "unit", "cores", "machine"))
        for what, value, unit in rows:
            writer.writerow((what, f"{value:.3g}", unit, os.cpu_count(), platform.machine()))


if __name__ == "__main__":
    main()
