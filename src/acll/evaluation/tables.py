"""The tables that people read and tools parse."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

COLUMNS = (
    "network", "method", "seed", "prefix", "task", "position", "kind", "metric", "score", "score_when_learned",
    "forgetting", "bit_exact", "ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped", "search_cost",
    "owned_share", "free_share", "samples", "device",
)  # fmt: skip
LITTLE_ROOM = 0.03  # share of the shared weights; with less, a task that comes can learn little
CHOSEN = ("ratio_searched", "ratio_low", "ratio_high", "ratio", "cap", "capped")
Key = tuple[str, str, int, tuple[str, ...]]  # network, method, seed, prefix


def scores_table(nodes: Mapping[Key, Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each (network, method, seed, prefix, task).

    nodes: what the evaluation of each node wrote, for every prefix of every sequence, so that the score of a task
    when it was learned is found at the node where it is last. forgetting = score_when_learned − score, exactly 0
    where the bits are the same and so is the device.
    """
    rows = []
    for (network, method, seed, prefix), node in nodes.items():
        for entry in node["rows"]:
            learned = nodes[(network, method, seed, prefix[: entry["position"]])]
            when = next(row["score"] for row in learned["rows"] if row["task"] == entry["task"])
            rows.append(
                {key: value for key, value in entry.items() if key != "choice"}
                | {key: entry["choice"].get(key) for key in CHOSEN}
                | {"search_cost": entry["choice"].get("cost")}
                | {"network": network, "method": method, "seed": seed, "prefix": "+".join(prefix)}
                | {"score_when_learned": when, "forgetting": when - entry["score"]}
                | {"free_share": node["free_share"], "device": node["device"]}
            )
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values(["network", "method", "seed", "prefix", "position"], ignore_index=True)


def final_table(scores: pd.DataFrame, sequences: Mapping[str, tuple[str, Sequence[str]]]) -> pd.DataFrame:
    """The rows of `scores` at the end of each sequence (name → network, tasks), with a column `sequence` in front."""
    ends = []
    for name, (network, tasks) in sequences.items():
        chosen = scores[(scores["network"] == network) & (scores["prefix"] == "+".join(tasks))]
        ends.append(chosen.assign(sequence=name))
    frame = pd.concat(ends, ignore_index=True)
    return frame[["sequence", *COLUMNS]]


def summary_table(final: pd.DataFrame) -> pd.DataFrame:
    """One row for each sequence and method: mean over seeds of the mean and worst score over tasks, and so on."""
    run = final.groupby(["sequence", "method", "seed"], sort=False)
    per_run = pd.DataFrame(
        {
            "mean_score": run["score"].mean(),
            "worst_score": run["score"].min(),
            "mean_forgetting": run["forgetting"].mean(),
            "bit_exact": run["bit_exact"].all(),
            "owned_share": run["owned_share"].sum(min_count=1),
            "free_share": run["free_share"].first(),
        }
    ).reset_index()
    grouped = per_run.groupby(["sequence", "method"], sort=False)
    numbers = ["mean_score", "worst_score", "mean_forgetting", "owned_share", "free_share"]
    summary = grouped[numbers].mean()
    summary.insert(3, "bit_exact", grouped["bit_exact"].all())
    summary.insert(0, "seeds", grouped.size())
    return summary.reset_index()


def data_table(summaries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each prepared task. summaries: what preparation wrote of each."""
    rows = []
    for summary in summaries:
        height, width = summary["image_size"]
        rows.append(
            {"task": summary["name"], "source": summary["source"], "kind": summary["kind"]}
            | {"classes": len(summary["classes"]), "channels": summary["channels"], "height": height, "width": width}
            | {split: summary["samples"][split] for split in ("train", "val", "test")}
            | {key: sum(summary[key].values()) for key in ("left_out", "warnings")}
        )
    return pd.DataFrame(rows)


def plot_table(final: pd.DataFrame) -> pd.DataFrame:
    """A row for each task at the end of each sequence and method, under one name; means over seeds. For dvc plots."""
    means = final.groupby(["sequence", "method", "task"], sort=False)["score"].mean().reset_index()
    return pd.DataFrame(
        {"result": means["sequence"] + " " + means["method"] + " " + means["task"], "score": means["score"]}
    )


def metrics_of(summary: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """The summary as nested plain data, sequence → method → figure, for `dvc metrics`."""
    figures = ["mean_score", "worst_score", "mean_forgetting", "free_share"]
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for row in summary.to_dict("records"):
        nested.setdefault(row["sequence"], {})[row["method"]] = {
            name: float(row[name]) for name in figures if pd.notna(row[name])
        }
    return nested


def trials_table(searches: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """All trials of all searches, in order. searches: by network/method/seed/prefix, what each search wrote."""
    if not searches:
        return pd.DataFrame(columns=["network", "method", "seed", "prefix"])
    frames = []
    for name, trials in searches.items():
        network, method, seed, *prefix = name.split("/")
        names = {
            "network": network,
            "method": method,
            "seed": int(seed.removeprefix("seed")),
            "prefix": "+".join(prefix),
        }
        frames.append(pd.DataFrame([names] * len(trials), index=trials.index, columns=list(names)).join(trials))
    return pd.concat(frames, ignore_index=True)


def amiss(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each task of whose data something was left out, or is to be looked at."""
    lines = []
    for summary in summaries:
        found = [
            f"{words} {', '.join(f'{count} {kind}' for kind, count in summary[key].items())}"
            for key, words in (("left_out", "left out:"), ("warnings", "warnings:"))
            if summary[key]
        ]
        if found:
            lines.append(f"{summary['name']}: {'; '.join(found)} (data/{summary['name']}.json has the files)")
    return lines


def short_of_room(final: pd.DataFrame) -> list[str]:
    """A line for each run at whose end little is free: how much, what each task took, what to change."""
    packed = final[final["ratio"].notna()]
    lines = []
    for (sequence, method, seed), run in packed.groupby(["sequence", "method", "seed"], sort=False):
        left = run["free_share"].iloc[0]
        if left < LITTLE_ROOM:
            took = ", ".join(f"{row.task} {row.owned_share:.1%}" for row in run.itertuples())
            lines.append(
                f"{sequence}, {method}, seed {seed}: {left:.1%} of the weights are left free for more tasks ({took}). "
                "A larger network, larger ratios or a lower cap (expected_tasks, tail_share) leave more; what was "
                "learned stays."
            )
    return lines


def readable(final: pd.DataFrame, summary: pd.DataFrame, remarks: Sequence[str]) -> str:
    """The tables as text for a console, and remarks below them."""
    shown = final[
        ["sequence", "method", "seed", "task", "metric", "score", "forgetting", "bit_exact", "ratio_searched", "ratio",
         "capped", "owned_share"]
    ].copy()  # fmt: skip
    if shown["seed"].nunique() == 1:
        shown = shown.drop(columns="seed")
    text = f"{_text(shown)}\n\n{_text(summary)}\n"
    capped = final[final["capped"].isin([True]) & final["ratio_searched"].notna()]
    if len(capped):
        tasks = ", ".join(dict.fromkeys(f"{row.task} ({row.method})" for row in capped.itertuples()))
        text += (
            f"\nThe cap left these tasks less than they asked for: {tasks}.\n"
            "A larger network, or another cap (expected_tasks, tail_share), would give them more.\n"
        )
    remarks = [*short_of_room(final), *remarks]
    return text + "".join(f"\n{remark}" for remark in remarks) + "\n" * bool(remarks)


def _text(frame: pd.DataFrame) -> str:
    from tabulate import tabulate

    cells = frame.copy()
    for column in cells:
        cells[column] = [_cell(value, str(column)) for value in cells[column]]
    previous = cells[["sequence", "method"]].shift()
    repeated = cells["sequence"] == previous["sequence"]
    cells.loc[repeated & (cells["method"] == previous["method"]), "method"] = ""
    cells.loc[repeated, "sequence"] = ""
    names = [str(column).replace("_", " ") for column in cells]
    numeric = {"score", "forgetting", "ratio_searched", "ratio", "owned_share", "seeds", "free_share"}
    right = [name in numeric or "score" in name or "forgetting" in name for name in map(str, cells)]
    align = ["right" if is_right else "left" for is_right in right]
    text: str = tabulate(cells.to_numpy().tolist(), headers=names, colalign=align, disable_numparse=True)
    return text


def _cell(value: Any, column: str) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and pd.isna(value)):
        return ""
    if column in ("bit_exact", "capped"):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if "score" in column or "forgetting" in column else f"{value:.3f}"
    return str(value)
