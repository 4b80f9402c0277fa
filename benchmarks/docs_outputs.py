"""Write what commands print into the documentation, from a finished demo.

    make run && python benchmarks/docs_outputs.py

Works in a copy of the checkout, since it changes a setting, damages a file and runs an experiment
(some minutes). Puts the output of each command behind its line `    $ …` in docs/sharing.md, and
the tables of the demo between the marks in README.md.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/sharing.md"
README = ROOT / "README.md"
MARKS = ("<!-- the tables of the demo -->\n", "<!-- made by benchmarks/docs_outputs.py -->\n")
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


def shown(text: str) -> str:
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


def put(page: str, command: str, text: str) -> str:
    """Return the page with this output behind the first line of the command."""
    pattern = re.compile(rf"(    \$ {re.escape(command)}\n)(?:    (?!\$ ).*\n)*")
    if not pattern.search(page):
        sys.exit(f"{PAGE.name}: has no line `    $ {command}`")
    return pattern.sub(lambda found: found.group(1) + shown(text), page, count=1)


def main() -> None:
    tables = ROOT / "results/demo/tables/tables.txt"
    if not tables.is_file():
        sys.exit(f"{tables}: there is no such file; `make run` makes it")
    readme = README.read_text(encoding="utf-8")
    before, rest = readme.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    text = shown(tables.read_text(encoding="utf-8").strip())
    README.write_text(before + MARKS[0] + "\n" + text + "\n" + MARKS[1] + after, encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
        (copy / ".venv").symlink_to(ROOT / ".venv")
        page = put(page, "make verify", output(copy, "make verify"))
        experiment = f"dvc exp run --name longer -S '{LONGER}' run@demo"
        run = output(copy, experiment)
        told = [line for line in run.splitlines() if "xperiment" in line]
        page = put(page, experiment, "\n".join(["…", *told]))
        for command in ("dvc params diff", "dvc metrics diff"):
            page = put(page, command, output(copy, command))
        (copy / DAMAGED).write_bytes((copy / DAMAGED).read_bytes()[:1000])
        output(copy, "git checkout config/demo.yaml")
        changed = re.sub("epochs: 16", "epochs: 12", (copy / "config/demo.yaml").read_text())
        (copy / "config/demo.yaml").write_text(changed)
        page = put(page, "make verify  # after these", output(copy, "make verify"))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
