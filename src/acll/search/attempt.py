"""One attempt at a kept share: release, retrain, score on the validation split."""

from collections.abc import Mapping

from torch import Tensor

from acll.packing.prune import keep_masks
from acll.packing.stage import released
from acll.search.run import Attempt, Measured
from acll.seeds import derived
from acll.training.evaluate import outcome
from acll.training.learner import Learner
from acll.training.loop import Plan
from acll.training.metrics import score, standard_error


def attempt_of(learner: Learner, state: Mapping[str, Tensor], free: Mapping[str, Tensor], scope: str) -> Attempt:
    """A function of (kept share, epochs, seed) for a task's dense state. Each attempt starts from that state anew.

    All attempts have the same number of looks at the validation split: one, after the last epoch.
    """

    def attempt(kept: float, epochs: int, seed: int) -> Measured:
        keep = keep_masks({name: state[name] for name in free}, free, 1 - kept, scope)
        plan = Plan(epochs, learner.training.retrain_learning_rate, seed, keep="last", label=f"keep {kept:.4f}")
        learner.fit(released(state, free, keep), plan, keep)
        result = outcome(learner.network, learner.validation, learner.header, learner.device)
        return Measured(score(result), standard_error(result, derived(seed, "bootstrap")))

    return attempt
