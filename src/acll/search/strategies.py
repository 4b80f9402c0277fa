"""Where to try next.

A strategy is a function of what is known; it has no state, so a search that was killed goes on as
if it had not been.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from acll.search.settings import Strategy
from acll.seeds import derived

STARTUP = (
    4  # random draws before TPE learns from losses; hyperopt's own 20 would be the whole search
)
# share of the draws that TPE takes for good ones; hyperopt's own 0.25 leaves one or two of a dozen
GAMMA = 0.5
STEP = 1.5  # of the sweep of kept shares
DECAY = 0.9  # what the decay rule starts at, and by which it shrinks the ratio


@dataclass(frozen=True)
class KnownTrials:
    """What brief trials have shown: the smallest share that may be tried, kept shares and scores in
    the order of trying, the reference first, the score that is needed, how far that is below the
    reference, and the search's seed."""

    low: float
    kept: Sequence[float]
    scores: Sequence[float]
    threshold: float
    tolerance: float
    seed: int

    def holds(self) -> bool:
        """Whether the last trial did."""
        return len(self.scores) > 1 and self.scores[-1] >= self.threshold - 1e-12


Suggest = Callable[[KnownTrials], float | None]  # None: the strategy has its answer


def objective_of(
    kept: float, score: float, threshold: float, tolerance: float, low: float
) -> float:
    """What the Bayesian search minimises: where the score holds, the position of the kept share on
    the log scale from `low` (0) to 1 (1); else more than that, by the shortfall of the score in
    units of the tolerance. Of trials that fail alike, as broken networks do, the largest share is
    the least bad: else the search would go the wrong way."""
    position = 1 - math.log(kept) / math.log(low)
    shortfall = (threshold - score) / tolerance
    return position if shortfall <= 0 else 2 - position + shortfall


def _drawn(strategy: Strategy, known: KnownTrials) -> float:
    losses = [objective_of(kept, score, known.threshold, known.tolerance, known.low)
              for kept, score in zip(known.kept, known.scores)]  # fmt: skip
    points = [{"kept": math.log(kept)} for kept in known.kept]
    bounds = {"kept": (math.log(known.low), 0.0)}
    return math.exp(draw(strategy, bounds, points, losses, known.seed)["kept"])


def _swept(known: KnownTrials) -> float | None:
    """An ascending sweep of kept shares until one holds, as in CPG (Hung et al. 2019)."""
    if known.holds():
        return None
    share = known.low if len(known.kept) == 1 else known.kept[-1] * STEP
    return share if share < 1 else None


def _decayed(known: KnownTrials) -> float | None:
    """A ratio that starts at 0.9 and shrinks until the score holds, as CLsurvey (De Lange et al.
    2021) and FACIL (Masana et al. 2022) do for PackNet."""
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
    """hyperopt's next point, within bounds; a function of its arguments alone.

    The first of the points is the reference, which is no draw. strategy: `tpe`, `anneal` or
    `random`.
    """
    from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, anneal, hp, rand, tpe
    from hyperopt.base import Domain

    algorithm = {
        "anneal": anneal.suggest,
        "random": rand.suggest,
    }.get(strategy, partial(tpe.suggest, n_startup_jobs=STARTUP + 1, gamma=GAMMA, verbose=False))  # fmt: skip
    space = {name: hp.uniform(name, low, high) for name, (low, high) in bounds.items()}
    domain = Domain(lambda point: 0.0, space)
    trials = Trials()
    for number, (point, loss) in enumerate(zip(points, losses)):
        document: Any = rand.suggest([number], domain, Trials(), number)[0]
        document["misc"]["vals"] = {name: [value] for name, value in point.items()}
        document["state"] = JOB_STATE_DONE
        document["result"] = {"loss": loss, "status": STATUS_OK}
        trials.insert_trial_docs([document])
        trials.refresh()
    number = len(losses)
    found = algorithm([number], domain, trials, derived(seed, "suggest", number) % 2**31)[0][
        "misc"
    ]["vals"]
    return {name: float(np.clip(found[name][0], *bounds[name])) for name in bounds}
