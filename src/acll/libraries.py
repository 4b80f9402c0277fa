"""The libraries that the package imports, and their versions. This is the one list of them."""

import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions, version

# import name → distributions whose version can change a result
WITH_EFFECT = {
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
    "pandas": ("pandas",),
    "tabulate": ("tabulate",),
    "pydantic": ("pydantic",),
    "pydantic_core": ("pydantic",),
    "safetensors": ("safetensors",),
}
# import names of libraries whose version changes no result of a step
WITHOUT_EFFECT = (
    "dvc",
    "itables",
    "jinja2",
    "markupsafe",
    "mlflow",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "psutil",
    "ruamel",
    "snakemake",
    "tensorboard",
    "tqdm",
    "yaml",
)
# what a packed network is built with
OF_NETWORKS = (
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "timm",
)


def distributions(imported: Iterable[str]) -> list[str]:
    """Return the distributions, of some imported top-level modules, whose version can change a
    result."""
    return sorted({name for module in imported for name in WITH_EFFECT.get(module, ())})


def distributions_unlisted(imported: Iterable[str]) -> set[str]:
    """Return the distributions, of some imported top-level modules, that are in no list here."""
    others = set(imported) - {*WITH_EFFECT, *WITHOUT_EFFECT, *sys.stdlib_module_names}
    return {name for module in others for name in _all_distributions().get(module, ())}


@cache
def _all_distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())  # reads what every installed package has


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: _version(name) for name in names}


@cache
def _version(name: str) -> str:
    return version(name)
