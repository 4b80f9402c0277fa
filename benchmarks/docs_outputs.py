"""Write what commands print into the documentation, from a finished demo.

    make run && python benchmarks/docs_outputs.py

Works in a copy of the checkout, since it changes a setting, damages a file and runs an experiment
(some minutes). Puts the output of each command behind its line `$ …` in docs/sharing.md, the
figures of each method into docs/benchmarks/demo.csv, and the figures that the pages show into
docs/. benchmarks/docs_tables.py makes the table of README.md.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import docs_tables
import pandas as pd
from docs_tables import ROWS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/sharing.md"
DEMO = ROOT / "results/demo"
# of tables/summary.csv; those that README shows
COLUMNS = ["sequence", "method", "mean_score", "worst_score", "mean_forgetting", "bit_exact"]
COLUMNS += ["free_share", "bytes", "size"]
FIGURES = {
    "scores.svg": "demo_scores.svg",
    "search.svg": "demo_search.svg",
    "data/crowd.png": "demo_sheet.png",
}
DAMAGED = "results/demo/nodes/unet/packnet50/seed0/discs/network.safetensors"
LONGER = "config/demo.yaml:+tasks.digits.training.epochs=20"


def output(copy: Path, command: str) -> str:
    """Run a command of the page in the copy; return what it prints, as the page shows it."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "COLUMNS": "100"}
    environment |= {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    # the environment is that of the checkout, and must not be installed from a copy
    command = command.replace("make ", "make --old-file=.venv/installed ")
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    text = result.stdout + result.stderr
    kept = [
        line.rstrip()
        for line in text.replace(str(copy), "…").splitlines()
        if line.strip() and not line.startswith("make: ***")
    ]
    return "\n".join(kept)


def put(page: str, command: str, text: str) -> str:
    """Return the page with this output behind the line of the command."""
    pattern = re.compile(rf"^(\$ {re.escape(command)}\n)(?:(?!\$ |```).+\n)*", re.MULTILINE)
    if not pattern.search(page):
        sys.exit(f"{PAGE.name}: has no line `$ {command}`")
    return pattern.sub(lambda found: f"{found.group(1)}{text}\n", page, count=1)


def main() -> None:
    summary = DEMO / "tables/summary.csv"
    if not summary.is_file():
        sys.exit(f"{summary}: there is no such file; `make run` makes it")
    table = pd.read_csv(summary)[COLUMNS].astype({"bytes": int})
    table.to_csv(ROWS / "demo.csv", index=False, float_format="%.4f")
    for name, shown in FIGURES.items():
        shutil.copyfile(DEMO / "figures" / name, ROOT / "docs" / shown)
    docs_tables.main()
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
        (copy / ".venv").symlink_to(ROOT / ".venv")
        # what DVC compares with is what git knows
        own = "git -c user.name=a -c user.email=a@b"
        output(copy, f"git add dvc.lock && {own} commit --quiet --message results")
        page = put(page, "make verify", output(copy, "make verify"))
        experiment = f"dvc exp run --name longer -S '{LONGER}' run@demo"
        run = output(copy, experiment)
        told = [line for line in run.splitlines() if "xperiment" in line]
        page = put(page, experiment, "\n".join(["…", *told]))
        for command in ("dvc params diff", "dvc metrics diff"):
            page = put(page, command, output(copy, command))
        (copy / DAMAGED).write_bytes((copy / DAMAGED).read_bytes()[:1000])
        output(copy, "git checkout config/demo.yaml")
        configured = (copy / "config/demo.yaml").read_text()
        changed = re.sub(r"epochs: \d+", "epochs: 9", configured)
        assert changed != configured
        (copy / "config/demo.yaml").write_text(changed)
        page = put(page, "make verify  # after these", output(copy, "make verify"))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
