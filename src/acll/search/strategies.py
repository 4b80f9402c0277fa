"""Strategies: which kept share to try next.

A strategy is a function of what is known. It has no state, so a search that was killed goes on as
if it had not been.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from acll.search.choice import holds
from acll.search.posterior import PRIOR_FACTOR, Posterior
from acll.search.settings import Strategy
from acll.seeds import derived

STARTUP = 1  # random draws before TPE learns from losses; hyperopt's own 20 would be all
# share of the draws that TPE takes for good ones; hyperopt's own 0.25 leaves one or two of a dozen
GAMMA = 0.5
SWEEP_FACTOR = 1.5  # from one kept share of the sweep to the next
FROM_BELOW = 0.25  # quantile of the answer that is tried; docs/search.md says where from
DECAY = 0.9  # what the decay rule starts at, and by which it shrinks the ratio


@dataclass(frozen=True)
class KnownTrials:
    """What trials have shown.

    kept, scores: of the trials in order. threshold: the score from which on a share holds.
    tolerance: of the search. low, high: between these lies the next share: above what failed and
    what a good score would not show to be enough, below what held or what the task may keep.
    lowest: the smallest share that may be tried. expected: the answer before any trial. posterior:
    of the answer after these. seed: of the search.
    """

    kept: Sequence[float]
    scores: Sequence[float]
    threshold: float
    tolerance: float
    low: float
    high: float
    lowest: float
    expected: float
    posterior: Posterior
    seed: int

    def has_held(self) -> bool:
        """Return whether any share held."""
        return any(holds(score, self.threshold) for score in self.scores)


Suggest = Callable[[KnownTrials], float | None]  # None: the strategy has its answer


def objective_of(
    kept: float, score: float, threshold: float, tolerance: float, low: float
) -> float:
    """Return what hyperopt's search minimises.

    Where the score holds, it is the position of the kept share on the log scale from `low` (0) to 1
    (1). Where it does not, it is more than 1, by the shortfall of the score in units of the
    tolerance. Broken networks all fail alike: of such trials the largest share must be the least
    bad, or the search would go to ever smaller ones.
    """
    position = 1 - math.log(kept) / math.log(low)
    shortfall = (threshold - score) / tolerance
    return position if shortfall <= 0 else 2 - position + shortfall


def _bisected(known: KnownTrials) -> float:
    """Return the lower quartile of the answer, of what lies between the bounds.

    A trial that fails ends early, and of those that hold one alone is taken over: so the search
    comes from below.
    """
    return known.posterior.quantile(FROM_BELOW, known.low, known.high)


def _drawn(algorithm: Literal["tpe", "random"], known: KnownTrials) -> float:
    """Return a draw of hyperopt, within the bounds.

    TPE draws from a normal prior on the log scale, random search evenly from between the bounds.
    """
    losses = [
        objective_of(share, score, known.threshold, known.tolerance, known.lowest)
        for share, score in zip(known.kept, known.scores, strict=True)
    ]
    points = [math.log(share) for share in known.kept]
    bounds = math.log(known.low), math.log(known.high)
    around = math.log(known.expected) if algorithm == "tpe" else None
    return math.exp(draw(around, bounds, points, losses, known.seed))


def _swept(known: KnownTrials) -> float | None:
    """Return the next share of an ascending sweep that ends at the first one that holds.

    As in CPG (Hung et al. 2019).
    """
    if known.has_held():
        return None
    return known.lowest * SWEEP_FACTOR ** len(known.kept)


def _decayed(known: KnownTrials) -> float | None:
    """Return the share of a ratio that starts at 0.9 and shrinks until the score holds.

    CLsurvey (De Lange et al. 2021) and FACIL (Masana et al. 2022) do so for PackNet.
    """
    if known.has_held():
        return None
    return max(known.lowest, 1 - DECAY ** (len(known.kept) + 1))


SUGGEST: Mapping[Strategy, Suggest] = {
    "bayes": _bisected,
    "tpe": partial(_drawn, "tpe"),
    "random": partial(_drawn, "random"),
    "grid": _swept,
    "decay": _decayed,
}
SWEEPS = ("grid", "decay")  # which end by a rule of their own, whatever they cost


def draw(
    around: float | None,
    bounds: tuple[float, float],
    points: Sequence[float],
    losses: Sequence[float],
    seed: int,
) -> float:
    """Return hyperopt's next point, within bounds; a function of the arguments alone.

    around: where TPE's prior has its mean; None: an even draw. points, losses: those so far.
    """
    from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, hp, rand, tpe
    from hyperopt.base import Domain

    space = hp.uniform("kept", *bounds)
    suggest = rand.suggest
    if around is not None:
        space = hp.normal("kept", around, math.log(PRIOR_FACTOR))
        suggest = partial(tpe.suggest, n_startup_jobs=STARTUP, gamma=GAMMA, verbose=False)
    domain = Domain(lambda point: 0.0, {"kept": space})
    # hyperopt takes what is known as documents of its own: draw one, and put our values into it
    trials = Trials()
    for number, (point, loss) in enumerate(zip(points, losses, strict=True)):
        document: Any = rand.suggest([number], domain, Trials(), number)[0]
        document["misc"]["vals"] = {"kept": [point]}
        document["state"] = JOB_STATE_DONE
        document["result"] = {"loss": loss, "status": STATUS_OK}
        trials.insert_trial_docs([document])
        trials.refresh()
    number = len(losses)
    hyperopt_seed = derived(seed, "suggest", number) % 2**31
    (found,) = suggest([number], domain, trials, hyperopt_seed)[0]["misc"]["vals"]["kept"]
    return min(max(float(found), bounds[0]), bounds[1])
