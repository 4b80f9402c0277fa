"""Packing: prune after each task, freeze the survivors, let the next task use what is free.

PackNet (Mallya & Lazebnik, CVPR 2018) with a ratio that is fixed or, for each task, searched
(Srivastava, Berman, Blaschko & Tuia, BMVC 2019).
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from acll.methods._free_weights import TrainFreeWeights
from acll.methods.base import FreeWeights, Method
from acll.node import DENSE, LEARNED
from acll.search.settings import Search
from acll.settings import Criterion, Positive, Release, Reuse, Scope, Share

if TYPE_CHECKING:
    from acll.networks.spec import Network


def _ratio_kind(value: Any) -> str:
    return "search" if isinstance(value, dict | Search) else "number"


Ratio = Annotated[
    Annotated[float, Field(ge=0, lt=1), Tag("number")] | Annotated[Search, Tag("search")],
    Discriminator(_ratio_kind),
]


class Packing(Method):
    """Train, release a part of the weights, retrain and freeze the rest: PackNet, with a fixed or a
    searched ratio, and by magnitudes or by scores that are learned with the weights."""

    type: Literal["packing"] = Field("packing", description="`packing`, which may be left out")
    ratio: Ratio = Field(
        description="share of what the task trained that it releases: a number in [0, 1), or "
        "the settings of a search"
    )
    criterion: Criterion = Field(
        "learned",
        description="what is kept of each layer: the weights whose scores are largest, which are "
        "`learned` with the weights, of small layers a larger share; or those of the largest "
        "`magnitude`, as PackNet",
    )
    scope: Scope = Field(
        "layer",
        description="by magnitude: release the same share of each `layer`, as PackNet, or the "
        "smallest of all weights (`global`), or whole output channels, the smallest mean magnitude "
        "relative to the mean of their layer first (`channel`); weights that read only released "
        "channels are released too",
    )
    release: Release = Field(
        "gradual",
        description="release step by step, in up to half of the epochs of release and "
        "retraining (`gradual`), or, by magnitude, all at once before them (`once`), as PackNet",
    )
    distill: bool = Field(
        False,
        description="whether release and retraining also learn what the dense network of the task "
        "says, which makes them a third longer",
    )
    free_weights: FreeWeights = Field(
        "fresh",
        description="where free weights start for later tasks: newly drawn, 0, or the values "
        "of `weights`",
    )
    reuse: Reuse = Field(
        "chosen",
        description="a task reads those weights of earlier tasks that it has `chosen`, by scores "
        "as its own, or `all`; by magnitude it always reads all, as PackNet",
    )
    expected_tasks: Positive = Field(
        5,
        description="n: with a search, task t < n may own a quarter of the weights free in its "
        "network, but at most twice and at least once an equal share, 1/(n-t+1); with `search: "
        "fixed` an equal share",
    )
    tail_share: Share = Field(
        0.5, description="with a search, the share of the free weights from task n on"
    )
    cap: bool = Field(
        True, description="whether these bounds hold; without them early tasks may take everything"
    )
    grow: float | None = Field(
        None,
        ge=1.1,
        le=4,
        description="by which factor the `width` of the network grows, once or more, where a task "
        "misses its goal within its cap; absent: it never grows. Of `resnet_small`, `lenet`, "
        "`conv_small`, and with `unet`, `unetplusplus`, `manet`",
    )

    @field_validator("scope", "release")
    @classmethod
    def _needs_magnitudes(cls, value: str, info: ValidationInfo) -> str:
        if value in ("global", "channel", "once") and info.data.get("criterion") == "learned":
            raise ValueError("needs `criterion: magnitude`")
        return value

    @field_validator("reuse")
    @classmethod
    def _needs_scores(cls, value: Reuse, info: ValidationInfo) -> Reuse:
        if value == "chosen" and info.data.get("criterion") == "magnitude":
            raise ValueError("needs `criterion: learned`: a task chooses by scores")
        return value

    @property
    def reads(self) -> Reuse:
        """Which weights of earlier tasks a task reads."""
        return self.reuse if self.criterion == "learned" else "all"

    @property
    def searches(self) -> bool:
        """Whether the ratio of each task is searched."""
        return isinstance(self.ratio, Search)

    @property
    def draws(self) -> bool:
        """Whether hyperopt proposes what a search tries."""
        return isinstance(self.ratio, Search) and self.ratio.search in ("tpe", "random")

    @property
    def grows(self) -> bool:
        """Whether the network becomes wider for tasks that need it."""
        return self.grow is not None

    goes_on: ClassVar[bool] = True
    rule_class: ClassVar[Any] = TrainFreeWeights

    def shared_first(self, network: "Network") -> str | None:
        """Return DENSE, or LEARNED where scores are learned."""
        return LEARNED if self.criterion == "learned" else DENSE

    def rules(self) -> tuple[str, ...]:
        """Return the rules that make the network of a node."""
        search = ("search",) if self.searches else ()
        grow = ("grow",) if self.grows else ()
        return ("train", *search, *grow, "prune", "retrain")

    def training_rule(self) -> TrainFreeWeights:
        """Return what the training of a task depends on: nothing of what comes after it."""
        return TrainFreeWeights(
            type=self.type, later=self.free_weights, criterion=self.criterion, reuse=self.reads
        )
