"""What a step's result depends on in code: its module, all modules of the package that it imports, and libraries.

Workflow managers compare a rule's command, not the modules behind it. The digest made here is a parameter of each
rule, so that an edited module reruns exactly the steps that import it, directly or not.
"""

import ast
import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = "acll"
LIBRARIES = {  # import name → distributions whose version can change results
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "segmentation_models_pytorch": ("segmentation-models-pytorch", "timm", "torchvision"),
    "timm": ("timm",),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "hyperopt": ("hyperopt",),
    "sklearn": ("scikit-learn",),
    "PIL": ("pillow",),
    "matplotlib": ("matplotlib",),
    "rasterio": ("rasterio",),
    "pycocotools": ("pycocotools",),
    "pyarrow": ("pyarrow",),
}


def code_of(module: str) -> dict[str, str]:
    """The digest of the module's import closure under `code`, and the versions of the libraries in it."""
    files, libraries = closure(module)
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.relative_to(_root()).as_posix()}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    distributions = sorted({name for library in libraries for name in LIBRARIES.get(library, ())})
    return {"code": total.hexdigest()[:16]} | {name: version(name) for name in distributions}


def closure(module: str) -> tuple[set[Path], set[str]]:
    """(files of the package, names of other top-level modules) that a module imports, transitively, itself included."""
    files: set[Path] = set()
    others: set[str] = set()
    waiting = [module]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or name == PACKAGE:  # the package itself hands on names to its users, and to no step
            continue
        seen.add(name)
        path = _path(name)
        if path is None:  # `from package import name` where name is no module
            continue
        files.add(path)
        for imported in _imports(path):
            if imported.split(".")[0] == PACKAGE:
                waiting.append(imported)
            else:
                others.add(imported.split(".")[0])
    return files, others


@cache
def _imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, at any depth of its code; of `from a import b` both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _path(name: str) -> Path | None:
    base = _root().joinpath(*name.split(".")[1:])
    if base.with_suffix(".py").is_file():
        return base.with_suffix(".py")
    package = base / "__init__.py"
    return package if package.is_file() else None


def _root() -> Path:
    return Path(__file__).resolve().parent
