"""One network, many vision tasks, nothing forgotten. `acll.load(path)` opens a packed network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acll.serving.model import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # lazily, so that a step of the pipeline imports only what it uses
    if name == "load":
        from acll.serving.model import load

        return load
    raise AttributeError(f"module 'acll' has no attribute {name!r}")
