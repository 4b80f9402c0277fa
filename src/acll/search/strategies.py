"""Strategies: which kept share to try next.

A strategy is a function of what is known. It has no state, so a search that was killed goes on as
if it had not been.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from acll.search.choice import holds
from acll.search.settings import Strategy
from acll.seeds import derived

# random draws before TPE learns from losses; hyperopt's own 20 would be the whole search
STARTUP = 4
# share of the draws that TPE takes for good ones; hyperopt's own 0.25 leaves one or two of a dozen
GAMMA = 0.5
SWEEP_FACTOR = 1.5  # from one kept share of the sweep to the next
DECAY = 0.9  # what the decay rule starts at, and by which it shrinks the ratio


@dataclass(frozen=True)
class KnownTrials:
    """What short trials have shown.

    low: the smallest share that may be tried. kept, scores: of the trials in order, the reference
    first. threshold: the score from which on a share holds. tolerance: how far that is below the
    reference. seed: of the search.
    """

    low: float
    kept: Sequence[float]
    scores: Sequence[float]
    threshold: float
    tolerance: float
    seed: int

    def holds(self) -> bool:
        """Return whether the last share that was tried held; False where none was tried."""
        return len(self.scores) > 1 and holds(self.scores[-1], self.threshold)


Suggest = Callable[[KnownTrials], float | None]  # None: the strategy has its answer


def objective_of(
    kept: float, score: float, threshold: float, tolerance: float, low: float
) -> float:
    """Return what the Bayesian search minimises.

    Where the score holds, it is the position of the kept share on the log scale from `low` (0) to 1
    (1). Where it does not, it is more than 1, by the shortfall of the score in units of the
    tolerance. Broken networks all fail alike: of such trials the largest share must be the least
    bad, or the search would go to ever smaller ones.
    """
    position = 1 - math.log(kept) / math.log(low)
    shortfall = (threshold - score) / tolerance
    return position if shortfall <= 0 else 2 - position + shortfall


def _drawn(strategy: Strategy, known: KnownTrials) -> float:
    losses = [
        objective_of(kept, score, known.threshold, known.tolerance, known.low)
        for kept, score in zip(known.kept, known.scores)
    ]
    points = [{"kept": math.log(kept)} for kept in known.kept]
    bounds = {"kept": (math.log(known.low), 0.0)}
    return math.exp(draw(strategy, bounds, points, losses, known.seed)["kept"])


def _swept(known: KnownTrials) -> float | None:
    """Return the next share of an ascending sweep that ends at the first one that holds.

    As in CPG (Hung et al. 2019).
    """
    if known.holds():
        return None
    share = known.low if len(known.kept) == 1 else known.kept[-1] * SWEEP_FACTOR
    return share if share < 1 else None


def _decayed(known: KnownTrials) -> float | None:
    """Return the share of a ratio that starts at 0.9 and shrinks until the score holds.

    CLsurvey (De Lange et al. 2021) and FACIL (Masana et al. 2022) do so for PackNet.
    """
    if known.holds():
        return None
    share = max(known.low, 1 - DECAY ** len(known.kept))
    return share if share <= 1 - known.low else None


SUGGEST: Mapping[Strategy, Suggest] = {
    "tpe": partial(_drawn, "tpe"),
    "anneal": partial(_drawn, "anneal"),
    "random": partial(_drawn, "random"),
    "grid": _swept,
    "decay": _decayed,
}


def draw(
    strategy: Strategy,
    bounds: Mapping[str, tuple[float, float]],
    points: Sequence[Mapping[str, float]],
    losses: Sequence[float],
    seed: int,
) -> dict[str, float]:
    """Return hyperopt's next point, within bounds; a function of the arguments alone.

    strategy: `tpe`, `anneal` or `random`. points, losses: those so far, the reference first, which
    is no draw.
    """
    from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, anneal, hp, rand, tpe
    from hyperopt.base import Domain

    # the reference counts as a draw for hyperopt
    of_tpe = partial(tpe.suggest, n_startup_jobs=STARTUP + 1, gamma=GAMMA, verbose=False)
    algorithm = {"anneal": anneal.suggest, "random": rand.suggest}.get(strategy, of_tpe)
    space = {name: hp.uniform(name, low, high) for name, (low, high) in bounds.items()}
    domain = Domain(lambda point: 0.0, space)
    # hyperopt takes what is known as documents of its own: draw one, and put our values into it
    trials = Trials()
    for number, (point, loss) in enumerate(zip(points, losses)):
        document: Any = rand.suggest([number], domain, Trials(), number)[0]
        document["misc"]["vals"] = {name: [value] for name, value in point.items()}
        document["state"] = JOB_STATE_DONE
        document["result"] = {"loss": loss, "status": STATUS_OK}
        trials.insert_trial_docs([document])
        trials.refresh()
    number = len(losses)
    hyperopt_seed = derived(seed, "suggest", number) % 2**31
    found = algorithm([number], domain, trials, hyperopt_seed)[0]["misc"]["vals"]
    return {name: float(np.clip(found[name][0], *bounds[name])) for name in bounds}
