"""Where to try next: hyperopt's TPE, one trial at a time, each with a seed of its own."""

from collections.abc import Sequence

import numpy as np

from acll.seeds import derived
from acll.settings import Search

_SHARPNESS = 0.25  # width, in tolerances, over which the penalty bends


def penalised(kept: float, score: float, threshold: float, tolerance: float, lower: float) -> float:
    """What TPE minimises: the position of the kept share on the log scale from `lower` (0) to 1 (1), plus the
    shortfall of the score below the threshold in units of the tolerance, made smooth."""
    position = 1 - np.log(kept) / np.log(lower)
    shortfall = (threshold - score) / tolerance
    return float(position + _SHARPNESS * np.logaddexp(0, shortfall / _SHARPNESS))


def suggest(settings: Search, kept: Sequence[float], losses: Sequence[float], seed: int) -> float:
    """The kept share to try next, in [lower, 1], given the reference (kept share 1) and the trials after it.

    Depends on these arguments alone, so a search that was killed goes on as if it had not been. The first `startup`
    trials are random; hyperopt's own default of 20 would make most searches random altogether. The reference counts
    as known: of trials that fail alike the smallest share has the least loss, so that without one that holds TPE
    would go the wrong way.
    """
    from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, hp, tpe
    from hyperopt.base import Domain

    space = {"kept": hp.loguniform("kept", np.log(settings.lower), 0.0)}
    domain = Domain(lambda point: 0.0, space)
    trials = Trials()
    for number, (share, loss) in enumerate(zip(kept, losses)):
        document = _ask(tpe, domain, Trials(), number, seed, settings)[0]
        document["misc"]["vals"] = {"kept": [share]}
        document["state"] = JOB_STATE_DONE
        document["result"] = {"loss": loss, "status": STATUS_OK}
        trials.insert_trial_docs([document])
        trials.refresh()
    document = _ask(tpe, domain, trials, len(kept), seed, settings)[0]
    return float(np.clip(document["misc"]["vals"]["kept"][0], settings.lower, 1.0))


def _ask(tpe, domain, trials, number: int, seed: int, settings: Search):  # type: ignore[no-untyped-def]
    own = derived(seed, "suggest", number) % 2**31
    return tpe.suggest([number], domain, trials, own, n_startup_jobs=settings.startup + 1, verbose=False)
