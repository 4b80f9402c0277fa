"""How the release ratio of a task is searched: the type of `methods.<name>.ratio`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from acll.settings import Settings

Strategy = Literal["bayes", "tpe", "random", "grid", "decay", "fixed"]
Prefer = Literal["size", "score"]


class Search(Settings):
    """How the release ratio of a task is searched; docs/search.md says what happens."""

    search: Strategy = Field(
        description="`bayes`: bisection of the posterior of the answer; `tpe`, `random`: "
        "hyperopt's; `grid`: an ascending sweep of kept shares; `decay`: a ratio of 0.9 that "
        "shrinks until the score holds; `fixed`: no search, the same `ratio` for every task"
    )
    budget: float = Field(
        0.5,
        gt=0,
        description="what the search may cost beyond the release and retraining that follow it, "
        "in units of the task's dense training; trials until one holds are made whatever it is",
    )
    prefer: Prefer | None = Field(
        None,
        description="`size`: the smallest share that scores as well as the dense network; "
        "`score`: the smallest that scores as well as all that the cap allows, which is tried "
        "first; with `bayes`, `tpe` or `random`. Absent: `score` by scores, from fresh weights, "
        "without `grow`, where the cap is at least 1.3 times the trained share; else `size`",
    )
    lower: float = Field(0.005, ge=1e-6, lt=1, description="no smaller kept share is tried")
    z: float = Field(1.0, gt=0, description="tolerance in standard errors of the reference score")
    min_tolerance: float = Field(0.0075, gt=0, lt=1, description="the tolerance is at least this")
    max_tolerance: float = Field(0.03, gt=0, lt=1, description="and at most this")
    ratio: float | None = Field(
        None, ge=0, lt=1, description="of `fixed`: the ratio; the cap may demand a larger one"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_tolerance > self.max_tolerance:
            raise ValueError(
                f"min_tolerance must not be above max_tolerance ({self.max_tolerance})"
            )
        if (self.search == "fixed") != (self.ratio is not None):
            raise ValueError("`search: fixed` needs a `ratio`, and no other strategy takes one")
        if self.prefer == "score" and self.search not in ("bayes", "tpe", "random"):
            raise ValueError(
                f"`search: {self.search}` ends at the first share that holds: `prefer: score` "
                "needs `bayes`, `tpe` or `random`"
            )
        return self
