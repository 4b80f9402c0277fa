"""One network, many vision tasks, nothing forgotten. `acll.load(path)` opens a packed network."""

import typing

if typing.TYPE_CHECKING:
    from acll.serving.model import load as load

__version__: str
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> typing.Any:
    # lazily, so that a step of the pipeline imports only what it uses
    if name == "load":
        from acll.serving.model import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("acll")
    raise AttributeError(f"module 'acll' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
