"""Plain fine-tuning: what forgetting is."""

from typing import Literal

from pydantic import Field

from acll.methods.base import Method


class FineTuning(Method):
    """Train everything on each task in turn; only heads are private. Shows what forgetting is."""

    type: Literal["finetuning"] = Field(description="`finetuning`")
