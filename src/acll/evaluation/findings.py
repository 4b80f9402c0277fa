"""What the tables of a run say, in sentences for people who were not there."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from acll.evaluation.class_tables import guessed_tasks
from acll.evaluation.fronts import REFERENCE_FRONT, lines_of
from acll.evaluation.learned_tasks import learned_here
from acll.evaluation.words import METRIC_WORDS, listed

_MOST_NAMED = 8  # tasks that are named one by one
MINUS = "\N{MINUS SIGN}"


def findings(
    final: pd.DataFrame,
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    paired: pd.DataFrame,
    classes: pd.DataFrame,
) -> list[str]:
    """Return a paragraph for each sequence: what was learned, and how much better it is than what.

    Where no method is known to have learned anything, that alone is said. final, runs, summary,
    paired, classes: the tables of these names.
    """
    types = dict(zip(runs["method"], runs["type"], strict=True))
    guessed = guessed_tasks(final, classes)
    paragraphs = []
    for sequence, own in summary.groupby("sequence", sort=False):
        whole = final[final["sequence"] == sequence]
        of_sequence = learned_here(whole)
        unlearned = _unlearned(of_sequence, guessed[guessed["sequence"] == sequence])
        before = list(dict.fromkeys(whole.loc[whole["score"].isna(), "task"]))
        sentences = [f"{sequence}: {_learned(of_sequence, unlearned, before)}"]
        if len(unlearned) < of_sequence["task"].nunique():
            sentences += _compared(own, types)
            sentences += _certainty(paired[paired["sequence"] == sequence])
        paragraphs.append(" ".join(sentences))
    return paragraphs


def _unlearned(final: pd.DataFrame, guessed: pd.DataFrame) -> list[str]:
    """Return the tasks of a sequence in which no method is known to be better than guessing."""
    by_task = guessed.groupby("task")["method"].nunique().to_dict()
    methods = final["method"].nunique()
    return [task for task in dict.fromkeys(final["task"]) if by_task.get(task) == methods]


def _named(tasks: list[str]) -> str:
    return listed(tasks) if len(tasks) <= _MOST_NAMED else f"{tasks[0]}, …, {tasks[-1]}"


def _learned(final: pd.DataFrame, unlearned: list[str], before: list[str]) -> str:
    """Return what was learned. before: the tasks that the network had learned elsewhere."""
    tasks = list(dict.fromkeys(final["task"]))
    named = _named(tasks)
    word = "task" if len(tasks) == 1 else "tasks, one after the other"
    about = f"the network {final['network'].iloc[0]}"
    about += f", which had learned {_named(before)} before," if before else ""
    no_better = "no method is better than guessing, as far as the test images tell."
    if unlearned == tasks:
        return (
            f"{about} is not known to have learned anything of its {word} ({named}): {no_better} "
            "The warnings say what may help."
        )
    learned = f"{about} learned {len(tasks)} {word} ({named})."
    return f"{learned} In {listed(unlearned)} {no_better}" if unlearned else learned


def _compared(summary: pd.DataFrame, types: dict[str, str]) -> list[str]:
    """Return how the best method that forgets nothing compares; without one, which is best."""
    ranked = summary.sort_values("mean_score", ascending=False, kind="stable")
    kept = ranked[ranked["bit_exact"] & ranked["mean_forgetting"].notna() & (ranked["size"] < 1)]
    if not len(kept):
        best = ranked.iloc[0].to_dict()
        return [f"The highest {_mean(best)} is that of {best['method']}."]
    ours = kept.iloc[0].to_dict()
    room = (
        ""
        if pd.isna(ours["free_share"])
        else f"; {ours['free_share']:.0%} of the network is still free"
    )
    lines = [
        f"{ours['method']} forgets nothing, bit for bit, in {ours['size']:.0%} of the bytes of a "
        f"network for each task{room}. It reaches a {_mean(ours)}, its lowest task "
        f"{ours['worst_score']:.3f}."
    ]
    others = ranked[ranked["method"] != ours["method"]]
    forgetful = others[~others["bit_exact"]]
    exact = others[others["bit_exact"]]
    shown = [forgetful.head(1), exact]
    told = [
        _against(ours["mean_score"] - row["mean_score"], row, types[row["method"]])
        for rows in shown
        for row in rows.to_dict("records")
    ]
    return [*lines, *([f"That is {'; '.join(told)}."] if told else [])]


def _mean(row: Mapping[Any, Any]) -> str:
    """Return the mean score of a method in words; that of different metrics says so."""
    value = f"{row['mean_score']:.3f}"
    if row["metric"] == "mixed":
        return f"mean of scores by several metrics of {value}"
    return f"mean {METRIC_WORDS[str(row['metric'])].removeprefix('mean ')} of {value}"


def _against(difference: float, row: Mapping[Any, Any], kind: str) -> str:
    """Return how far a method is from another one. kind: the type of the other."""
    what = {
        "individual": ", a network for each task",
        "joint": ", which learns all tasks at once",
    }.get(kind, "")
    if not row["bit_exact"]:
        what = ", which forgets"
    if round(abs(difference), 3) == 0:
        return f"as much as {row['method']}{what}"
    word = "more" if difference > 0 else "less"
    return f"{abs(difference):.3f} {word} than {row['method']}{what}"


def _certainty(paired: pd.DataFrame) -> list[str]:
    pairs = paired[(paired["figure"] == "mean_score") & paired["low"].notna()]
    clear = int(((pairs["low"] > 0) | (pairs["high"] < 0)).sum())
    if len(pairs):
        return [
            f"{clear} of {len(pairs)} pairs of methods differ in mean score by more than their 95% "
            "interval."
        ]
    return ["With one run of each method no difference has an interval."] if len(paired) else []


def fixed_ratio_findings(front: pd.DataFrame, against: pd.DataFrame) -> list[str]:
    """Return a paragraph for each sequence and method with a searched ratio: how it compares with
    fixed ones.

    Empty where no front has two fixed ratios. front, against: the tables `front` and
    `against_fixed`.
    """
    fronts = lines_of(front)
    if not fronts:
        return []
    reference = REFERENCE_FRONT if REFERENCE_FRONT in fronts else fronts[0]
    fixed = set(front.loc[front["on_front"].astype(bool), "method"])
    packing = set(front.loc[front["type"] == "packing", "method"])
    shown = against[(against["front"] == reference) & against["method"].isin(packing - fixed)]
    return [
        f"{row['sequence']}: {_at_equal_bytes(row)} {_in_hindsight(row)}"
        for row in shown.to_dict("records")
    ]


def _at_equal_bytes(row: Mapping[Any, Any]) -> str:
    """Return how a method compares with a front at equal bytes and at equal score."""
    method, front = row["method"], f"the front of fixed ratios ({row['front']})"
    beyond, matched = row["runs"] - row["compared"], row["matched"]
    if row["compared"]:
        difference = f"{row['difference']:+.3f}"
        if pd.notna(row["low"]):
            difference += f" ({row['low']:+.3f} to {row['high']:+.3f})"
        difference = difference.replace("-", MINUS)
        told = (
            f"at equal bytes the mean score of {method} less that of {front} is {difference}, "
            f"above 0 in {row['better']} of {row['compared']} runs"
        )
        told += f" ({beyond} more beyond the ends)" if beyond else ""
    else:
        told = f"{method} has fewer bytes than all of {front}, or more than all"
    if matched:
        known = f" (known of {matched} of {row['runs']} runs)" if matched < row["runs"] else ""
        told += f"; it needs {row['bytes_ratio']:.2f} times the bytes for the same score{known}"
    return f"{told}."


def _in_hindsight(row: Mapping[Any, Any]) -> str:
    """Return how a method compares with the best fixed ratio, which nobody knows before."""
    if row["regret"] > 0:
        return f"In hindsight {row['best']} would have been {row['regret']:.3f} better."
    return (
        f"No fixed ratio would have been better; the best, {row['best']}, is "
        f"{-row['regret']:.3f} below it."
    )
