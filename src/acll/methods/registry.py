"""The methods: every other module here is one, but `base` and those that begin with `_`."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from acll.methods.base import Method, TrainingRule
from acll.registry import load_kind

METHODS = "acll.methods"


def method(name: str) -> type[Method]:
    """Return the class of a method. Raises ValueError for a name that is none."""
    return load_kind(METHODS, "type", name, Method)


def _rule(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    known = method(value["type"])
    return (known.rule_class or known).model_validate(value)


# the training of any method, in a step: only the module of its own method is imported
RuleOfMethod = Annotated[SerializeAsAny[TrainingRule], BeforeValidator(_rule)]
