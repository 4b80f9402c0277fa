"""The sources of tasks: every other module here is one."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from acll.data.task import Task
from acll.registry import load_kind

SOURCES = "acll.data.sources"


def source(name: str) -> type[Task]:
    """Return the settings of a source. Raises ValueError for a name that is none."""
    return load_kind(SOURCES, "source", name, Task)


def _task(value: Any) -> Any:
    return source(value["source"]).model_validate(value) if isinstance(value, dict) else value


# a task of any source, in a step: only the module of its own source is imported
TaskOfSource = Annotated[SerializeAsAny[Task], BeforeValidator(_task)]
