"""Which extra of the package brings a library: `pip install "acll[pipeline]"`."""

from importlib.util import find_spec

# extra → the modules that it brings and the package imports; a test compares with pyproject.toml
EXTRAS = {
    "pipeline": (
        "dvc",
        "hyperopt",
        "itables",
        "jinja2",
        "pandas",
        "psutil",
        "pyarrow",
        "pycocotools",
        "rich",
        "ruamel",
        "scipy",
        "sklearn",
        "snakemake",
    ),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "board": ("tensorboard",),
}


def require_extra(extra: str) -> None:
    """Raise ModuleNotFoundError where a library of an extra is not installed."""
    for module in EXTRAS[extra]:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def advice_for(error: ModuleNotFoundError) -> str | None:
    """Return what to do about a module that is not there; None where it belongs to no extra."""
    missing = (error.name or "").split(".")[0]
    for extra, modules in EXTRAS.items():
        if missing in modules:
            return f'{missing} is not installed: type `pip install "acll[{extra}]"`'
    return None
