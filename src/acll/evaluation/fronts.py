"""Methods against fixed ratios: at equal bytes, at equal score, and in hindsight.

A *front* is what fixed ratios that differ in nothing else reach: their scores against the bytes of
their networks. docs/metrics.md has the definitions.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from acll.evaluation.statistics import Matrix, interval

REFERENCE_FRONT = "learned"  # of ratios that release by scores, as a search does by default
_OF_RUN = (
    *("sequence", "order", "method", "type", "seed"),
    *("mean_score", "worst_score", "bytes", "capacity", "bit_exact"),
)
FRONT_COLUMNS = (
    *("front", *_OF_RUN, "on_front", "front_mean_score", "difference"),
    *("front_worst_score", "worst_difference", "front_bytes", "bytes_ratio"),
)
AGAINST_COLUMNS = (
    *("front", "sequence", "method", "runs", "compared", "better", "difference", "low", "high"),
    *("worst_difference", "worst_low", "worst_high"),
    *("matched", "bytes_ratio", "bytes_ratio_low", "bytes_ratio_high"),
    *("best", "regret", "regret_low", "regret_high", "worst_regret"),
)
OVER_COLUMNS = (
    *("front", "method", "sequences", "compared", "difference", "low", "high"),
    *("runs", "runs_difference", "runs_low", "runs_high"),
    *("bytes_ratio", "worst_regret", "worst_in"),
)


def score_at(size: float, sizes: Matrix, scores: Matrix) -> float:
    """Return the score of a front at a number of bytes, linear in log bytes between its points.

    NaN beyond the ends. sizes, scores: of the points, sizes rising.
    """
    if not len(sizes) or not sizes[0] <= size <= sizes[-1]:
        return float("nan")
    return float(np.interp(np.log(size), np.log(sizes), scores))


def bytes_at(score: float, sizes: Matrix, scores: Matrix) -> float:
    """Return the fewest bytes at which a front reaches a score.

    NaN beyond the ends: where it never does, or where its smallest network has more. Arguments are
    those of `score_at`.
    """
    reached = np.flatnonzero(scores >= score)
    if not len(reached) or scores[0] > score:
        return float("nan")
    first = reached[0]
    if first == 0:
        return float(sizes[0])
    between = slice(first - 1, first + 1)
    return float(np.exp(np.interp(score, scores[between], np.log(sizes[between]))))


def stand_ins(fixed: pd.DataFrame, figure: str) -> dict[str, str]:
    """Return for each fixed ratio the best of those that need no more bytes, by means over runs.

    That may be itself. fixed: rows of the table `runs`, of one sequence and front. figure: the
    column of the score.
    """
    means = fixed.groupby("method", sort=False)[["bytes", figure]].mean()
    in_order = means.sort_values(["bytes", figure], ascending=[True, False], kind="stable")
    found: dict[str, str] = {}
    best = str(in_order.index[0])
    for method, score in in_order[figure].items():
        if score > in_order.loc[best, figure]:
            best = str(method)
        found[str(method)] = best
    return found


def front_points(
    fixed: pd.DataFrame, figure: str, stands: Mapping[str, str]
) -> tuple[Matrix, Matrix]:
    """Return the points of a front: bytes (rising) and scores.

    fixed: a row for each fixed ratio, in one run or as means over runs. stands: of `stand_ins`.
    """
    scores = fixed.set_index("method")[figure]
    reached = pd.Series(
        [scores[stands[method]] for method in fixed["method"]], fixed["bytes"].astype(float)
    )
    points = reached.groupby(level=0).max()  # two may have the same bytes
    return points.index.to_numpy(), points.to_numpy()


def front_table(runs: pd.DataFrame, fixed: Mapping[str, str]) -> pd.DataFrame:
    """Return a row for each front and run: its score, and that of the front at equal bytes.

    runs: the table of that name. fixed: the front of each method with a fixed ratio; empty without
    one, and so is the table. Cells are empty beyond the ends of the front, and for the ratios that
    it is made of.
    """
    rows = []
    for front in dict.fromkeys(fixed.values()):
        for _, own in runs.groupby("sequence", sort=False):
            on_front = own["method"].map(fixed) == front
            stands = {
                figure: stand_ins(own[on_front], figure) for figure in ("mean_score", "worst_score")
            }
            for _, run in own.assign(on_front=on_front).groupby(["order", "seed"], sort=False):
                rows += _against(run, stands, front)
    return pd.DataFrame(rows, columns=list(FRONT_COLUMNS))


def _against(
    run: pd.DataFrame, stands: Mapping[str, Mapping[str, str]], front: str
) -> list[dict[str, object]]:
    """Return the rows of one sequence, order and seed. stands: of each figure."""
    points = {
        figure: front_points(run[run["on_front"]], figure, own) for figure, own in stands.items()
    }
    rows = []
    for row in run.to_dict("records"):
        found = {"front": front, "on_front": row["on_front"]} | {key: row[key] for key in _OF_RUN}
        if not row["on_front"]:
            mean = score_at(row["bytes"], *points["mean_score"])
            worst = score_at(row["bytes"], *points["worst_score"])
            needed = bytes_at(row["mean_score"], *points["mean_score"])
            found |= {
                "front_mean_score": mean,
                "difference": row["mean_score"] - mean,
                "front_worst_score": worst,
                "worst_difference": row["worst_score"] - worst,
                "front_bytes": needed,
                "bytes_ratio": row["bytes"] / needed,
            }
        rows.append(found)
    return rows


def lines_of(front: pd.DataFrame) -> list[str]:
    """Return the names of the fronts that have two fixed ratios at least: lines, not points.

    front: the table of `front_table`.
    """
    ratios = front[front["on_front"].astype(bool)].groupby("front", sort=False)["method"].nunique()
    return [str(name) for name, count in ratios.items() if count > 1]


def against_fixed_table(front: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each front, sequence and method: means over runs with 95% intervals.

    front: the table of `front_table`. `worst_regret` is over all sequences.
    """
    rows = []
    for (name, sequence), own in front.groupby(["front", "sequence"], sort=False):
        scores = own.set_index(["order", "seed", "method"])["mean_score"].unstack("method")
        means = own.groupby("method", sort=False)["mean_score"].mean()
        fixed = own.loc[own["on_front"], "method"].unique()
        best = str(means[fixed].idxmax())
        for method, of_method in own.groupby("method", sort=False):
            ratios = of_method["bytes_ratio"].dropna()
            rows.append(
                {
                    "front": name,
                    "sequence": sequence,
                    "method": method,
                    "runs": len(of_method),
                    "compared": int(of_method["difference"].notna().sum()),
                    "better": int((of_method["difference"] > 0).sum()),
                    "matched": len(ratios),
                    "best": best,
                }
                | _interval(of_method["difference"], ("difference", "low", "high"))
                | _interval(
                    of_method["worst_difference"], ("worst_difference", "worst_low", "worst_high")
                )
                | _interval(np.log(ratios), _low_high("bytes_ratio"), np.exp)
                | _interval(scores[best] - scores[method], _low_high("regret"))
            )
    table = pd.DataFrame(rows, columns=list(AGAINST_COLUMNS))
    worst = table.groupby(["front", "method"])["regret"].transform("max")
    return table.assign(worst_regret=worst)


def over_sequences(front: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each front and method: what holds over all sequences.

    front: the tables of `front_table` of one or several configurations. `difference` with its
    interval is over sequences, of which each is the mean of its runs; `runs_difference` over all
    runs alike.
    """
    against = against_fixed_table(front)
    rows = []
    for (name, method), own in against.groupby(["front", "method"], sort=False):
        of_runs = front[(front["front"] == name) & (front["method"] == method)]["difference"]
        ratios = own["bytes_ratio"].dropna()
        rows.append(
            {
                "front": name,
                "method": method,
                "sequences": len(own),
                "compared": int(own["difference"].notna().sum()),
                "runs": int(of_runs.notna().sum()),
                "bytes_ratio": np.exp(np.log(ratios).mean()),
                "worst_regret": own["regret"].max(),
                "worst_in": own["sequence"].iloc[own["regret"].argmax()],
            }
            | _interval(own["difference"], ("difference", "low", "high"))
            | _interval(of_runs, ("runs_difference", "runs_low", "runs_high"))
        )
    return pd.DataFrame(rows, columns=list(OVER_COLUMNS))


def _low_high(figure: str) -> tuple[str, str, str]:
    return figure, f"{figure}_low", f"{figure}_high"


def _interval(
    values: "pd.Series[float]",
    names: tuple[str, str, str],
    scale: Callable[[float], float] = float,
) -> dict[str, float]:
    """Return mean and 95% interval of those values that are known, by these names."""
    found = interval(values.dropna().tolist())
    return {name: float(scale(value)) for name, value in zip(names, found, strict=True)}
