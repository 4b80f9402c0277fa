"""docs/architecture.md says what is so."""

import ast
import contextlib
import re
import subprocess
import sys
from collections import defaultdict
from importlib import import_module

import pytest

from acll.code import _statements
from acll.config.checks import load_configuration
from acll.plan import plan
from conftest import ROOT

PACKAGE = ROOT / "src/acll"
TEXT = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
FLOORS = {
    name.rstrip("/").removesuffix(".py"): int(floor)
    for floor, names in re.findall(r"^\| (\d) \| (.*?) \|", TEXT, re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", names)
}
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part_of(name: str) -> str:
    """The part of the package that a dotted name lies in: a folder, or a module beside them."""
    return name.split(".")[1]


def imported(path):
    """The parts of the package that a module imports at run time."""
    for node in _statements(ast.parse(path.read_text(encoding="utf-8")), run=True):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = node.module == "acll"
            names = [f"acll.{alias.name}" for alias in node.names] if whole else [node.module or ""]
        else:
            continue
        yield from (part_of(name) for name in names if name.startswith("acll."))


def test_every_part_of_the_package_has_a_floor():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert parts == set(FLOORS)


def test_imports_run_downwards():
    upwards = [
        f"{path.relative_to(PACKAGE)} imports {part}"
        for path in MODULES
        for part in imported(path)
        if FLOORS[part] > FLOORS[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
    ]
    assert upwards == []


@pytest.mark.parametrize("document", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_are_named_are_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/.]+\.(?:py|smk|md))`", text))
    assert named
    missing = [
        name
        for name in named
        if not any(
            (base / name).exists()
            for base in (ROOT, PACKAGE, PACKAGE / "methods", PACKAGE / "networks")
        )
    ]
    assert missing == []


def test_a_public_name_is_defined_in_one_module():
    # what modules of one kind have in common: each step its `main`, each reading its own
    # `Parameters`, …
    interfaces = {"main"}
    where = defaultdict(set)
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            else:
                continue
            for name in names:
                if not name.startswith("_") and name not in interfaces:
                    where[name].add(path.relative_to(PACKAGE).as_posix())
    assert {name: sorted(found) for name, found in where.items() if len(found) > 1} == {}


def test_no_line_has_more_than_100_columns():
    paths = [
        *PACKAGE.rglob("*.py"),
        *(ROOT / "tests").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    paths += [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk"), ROOT / "Makefile"]
    paths += [*(ROOT / "config").glob("*.yaml"), ROOT / "pyproject.toml", ROOT / "dvc.yaml"]
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 100
    ]
    assert long == []


def test_the_way_of_a_setting_goes_through_functions_that_are_there():
    way = TEXT.split("## The way of a setting")[1].split("If the ratio")[0]
    named = re.findall(r"^\d\. `([\w.]+)`", way, re.MULTILINE)
    assert 5 <= len(named) <= 7
    homes = {"Configuration": "config.configuration", "Training": "training.settings"}
    for name in named:
        first, *rest = name.split(".")
        first = {"Job": "plan.Job"}.get(
            first, f"{homes[first]}.{first}" if first in homes else first
        )
        parts = [*first.split("."), *rest]
        for count in range(len(parts), 0, -1):
            with contextlib.suppress(ModuleNotFoundError):
                found = import_module(".".join(("acll", *parts[:count])))
                break
        for attribute in parts[count:]:
            found = getattr(found, attribute)
        assert found is not None


def test_documents_say_the_numbers_of_the_demo():
    jobs = plan(load_configuration(ROOT / "config/demo.yaml"))
    results = sum(len(job.all_outputs) for job in jobs)
    found = []
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        found += re.findall(r"results/demo: (\d+) results, all as this commit", text)
        found += re.findall(r"of (\d+) results are not as this commit", text)
    assert found
    assert set(found) == {str(results)}


def test_every_benchmark_can_be_imported():
    """They are run rarely, and would otherwise be found broken then."""
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    script = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    command = [sys.executable, "-c", script, *names]
    found = subprocess.run(
        command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
