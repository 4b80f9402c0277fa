"""The libraries that the package imports, and their versions. This is the one list of them."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version

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


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: _version(name) for name in names}


@cache
def _version(name: str) -> str:
    return version(name)
