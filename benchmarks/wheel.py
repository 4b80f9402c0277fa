"""What the wheel brings into a fresh environment, and how long importing takes.

    python benchmarks/wheel.py

Builds the wheel and installs it, in the versions of requirements/lock.txt, into environments in a
temporary folder: alone, and with each extra. Then imports torch and acll in new processes, in
turns, and takes the medians. Writes docs/benchmarks/wheel.csv and wheel_imports.csv. Run it on a
machine that has nothing else to do.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "docs/benchmarks"
EXTRAS = ("", "[export]", "[pipeline]", "[dev]")
IMPORTS = {"import torch": "import torch", "import acll": "import acll"}
IMPORTS["acll.load"] = "import acll; acll.load"
REPEATED = 10


def build(folder: Path) -> Path:
    """Build the wheel; return its path."""
    command = ["uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, extra: str, folder: Path) -> Path:
    """Make an environment with the wheel and an extra; return its Python."""
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin/python"
    wanted = f"acll{extra} @ {wheel.as_uri()}"
    command = ["uv", "pip", "install", "--quiet", "--python", python, wanted]
    subprocess.run([*command, "--constraint", ROOT / "requirements/lock.txt"], check=True)
    return python


def installed(python: Path) -> tuple[int, int]:
    """Return how many distributions an environment has, and their bytes."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    files = [path for path in packages.rglob("*") if path.is_file() and not path.is_symlink()]
    return len(list(packages.glob("*.dist-info"))), sum(path.stat().st_size for path in files)


def seconds(python: Path, statement: str) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    begin = time.perf_counter()
    subprocess.run([python, "-c", statement], env=environment, cwd="/", check=True)
    return time.perf_counter() - begin


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        sizes = [{"what": "the wheel", "packages": 1, "bytes": wheel.stat().st_size}]
        for extra in EXTRAS:
            python = install(wheel, extra, folder / f"with{extra.strip('[]')}")
            packages, total = installed(python)
            sizes.append({"what": f"acll{extra}", "packages": packages, "bytes": total})
        python = folder / "with/bin/python"
        for statement in IMPORTS.values():  # byte code is written, files are in memory
            seconds(python, statement)
        times: dict[str, list[float]] = {what: [] for what in IMPORTS}
        for _ in range(REPEATED):
            for what, statement in IMPORTS.items():
                times[what].append(seconds(python, statement))
    imports = [{"what": what, "seconds": statistics.median(each)} for what, each in times.items()]
    pd.DataFrame(sizes).to_csv(ROWS / "wheel.csv", index=False)
    table = pd.DataFrame(imports)
    table["to_torch"] = table["seconds"] / table["seconds"].iloc[0]
    table.round(3).to_csv(ROWS / "wheel_imports.csv", index=False)
    print(pd.DataFrame(sizes).to_string(), table.to_string(), sep="\n")


if __name__ == "__main__":
    main()
