"""What prepared files depend on, beside the raw data."""

from acll.data.sources.registry import TaskOfSource
from acll.data.task import Task
from acll.parameters.base import Params


class PrepareParams(Params):
    """A task. What networks make of it is no part of this: adding one prepares nothing anew."""

    name: str
    task: TaskOfSource  # of `prepared_settings`


def prepared_settings(task: Task) -> Task:
    """Return the settings of a task, less its metric and its overrides of `training`, on which
    nothing prepared depends."""
    return task.model_copy(update={"training": {}, "metric": None})
