"""docs/architecture.md says what is so."""

import ast
import re
from collections import defaultdict

import pytest

from acll.code import _run_statements
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
    for node in _run_statements(ast.parse(path.read_text(encoding="utf-8"))):
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
