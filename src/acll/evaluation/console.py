"""The tables as text: what a run says at its end, and what goes into a paper."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

LITTLE_ROOM = 0.03  # share of the shared weights; with less, a task that comes can learn little


def readable(final: pd.DataFrame, summary: pd.DataFrame, remarks: Sequence[str]) -> str:
    """Return the tables as text for a console, and remarks below them.

    final, summary: the tables of these names.
    """
    text = f"{_text(_by_task(final))}\n\n{_text(_by_method(summary))}\n"
    if summary["runs"].max() > 1:
        text += (
            "\nMeans over runs (seeds, orders), 95% intervals; tables/paired.csv compares "
            "methods run by run.\n"
        )
    return text + "".join(f"\n{remark}\n" for remark in remarks)


def for_papers(summary: pd.DataFrame, form: str) -> str:
    """Return the summary as a table in text.

    form: one that tabulate knows, such as `github` (Markdown) or `latex_booktabs`.
    """
    return f"{_text(_by_method(summary), form)}\n"


def _by_task(final: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each sequence, method and task; means over runs."""
    rows = []
    for (sequence, method), own in final.groupby(["sequence", "method"], sort=False):
        first = final[final["sequence"] == sequence].iloc[: own["position"].max()]
        for task in first["task"]:
            runs = own[own["task"] == task]
            capped = runs["capped"].dropna()
            forgetting = runs["forgetting"].dropna()  # empty where no task is learned in turn
            rows.append(
                {
                    "sequence": sequence,
                    "method": method,
                    "task": task,
                    "metric": runs["metric"].iloc[0],
                    "score": f"{runs['score'].mean():.4f}",
                    "forgetting": f"{forgetting.mean():.4f}" if len(forgetting) else "",
                    "bit exact": _yes(runs["bit_exact"].all()),
                    "ratio searched": _share(runs["ratio_searched"]),
                    "ratio": _share(runs["ratio"]),
                    "capped": _count(capped) if len(capped) else "",
                    "owned share": _share(runs["owned_share"]),
                }
            )
    return rows


def _by_method(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each sequence and method; means over runs with half of their intervals."""
    return [
        {
            "sequence": row["sequence"],
            "method": row["method"],
            "runs": row["runs"],
            "mean score": _with_half(row, "mean_score"),
            "worst score": _with_half(row, "worst_score"),
            "forgetting": _with_half(row, "mean_forgetting"),
            "bit exact": _yes(row["bit_exact"]),
            "free share": "" if pd.isna(row["free_share"]) else f"{row['free_share']:.3f}",
            "bytes": f"{row['bytes']:,.0f}",
            "of separate networks": f"{row['size']:.2f}",
        }
        for row in summary.to_dict("records")
    ]


def _with_half(row: Mapping[Any, Any], figure: str) -> str:
    if pd.isna(row[figure]):
        return ""
    half = row[f"{figure}_high"] - row[figure]
    return f"{row[figure]:.4f}" + ("" if pd.isna(half) else f" ± {half:.4f}")


def _share(values: pd.Series) -> str:
    return "" if values.isna().all() else f"{values.mean():.3f}"


def _count(flags: pd.Series) -> str:
    """Return of how many runs a flag is set; yes or no where there is one run."""
    count = int(flags.astype(bool).sum())
    return _yes(count > 0) if len(flags) == 1 else f"{count} of {len(flags)}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _text(rows: Sequence[Mapping[str, Any]], form: str = "simple") -> str:
    """Return rows as a table in text; a sequence or method that stands above is not repeated."""
    shown, above = [], ("", "")
    for row in rows:
        here = (row["sequence"], row["method"])
        shown.append(
            {
                **row,
                "sequence": here[0] if here[0] != above[0] else "",
                "method": here[1] if here != above else "",
            }
        )
        above = here
    text = ("sequence", "method", "task", "metric", "bit exact", "capped")
    align = ["left" if name in text else "right" for name in rows[0]]
    cells = [list(row.values()) for row in shown]
    table: str = tabulate(
        cells, headers=list(rows[0]), colalign=align, disable_numparse=True, tablefmt=form
    )
    return table


def remarks_of(final: pd.DataFrame, budgets: Mapping[str, float]) -> list[str]:
    """Return what a person should know beside the tables.

    final: the table of that name. budgets: of each method that searches, by its name.
    """
    return [*_capped(final), *_overdrawn(final, budgets), *_short_of_room(final)]


def _capped(final: pd.DataFrame) -> list[str]:
    """Return a line that names the tasks which the cap left less than they asked for."""
    rows = final[final["capped"].isin([True]) & final["ratio_searched"].notna()]
    if not len(rows):
        return []
    tasks = ", ".join(dict.fromkeys(f"{row.task} ({row.method})" for row in rows.itertuples()))
    return [
        f"The cap left these tasks less than they asked for: {tasks}.\n"
        "A larger network, or another cap (expected_tasks, tail_share), would give them more."
    ]


def _overdrawn(final: pd.DataFrame, budgets: Mapping[str, float]) -> list[str]:
    """Return a line for each method of which searches cost more than their budget."""
    lines = []
    for method, budget in budgets.items():
        # networks of several sequences and orders share their searches
        searches = final[(final["method"] == method) & final["search_cost"].notna()]
        orders, positions = searches["order"].astype(str), searches["position"].astype(int)
        prefixes = [
            "+".join(order.split("+")[:position])
            for order, position in zip(orders, positions, strict=True)
        ]
        searches = searches.assign(learned=prefixes).drop_duplicates(["network", "seed", "learned"])
        over = searches[searches["search_cost"] > budget]
        if len(over):
            lines.append(
                f"{method}: {len(over)} of {len(searches)} searches cost more than their "
                f"budget of {budget:g}, at most {over['search_cost'].max():.2f} trainings: more "
                "shares failed than were expected to (docs/search.md)."
            )
    return lines


def _short_of_room(final: pd.DataFrame) -> list[str]:
    """Return a line for each method at whose end little is free.

    It says how much is free, what each task took, and what to change.
    """
    packed = final[final["ratio"].notna() & (final["free_share"] < LITTLE_ROOM)]
    lines = []
    for (sequence, method), own in packed.groupby(["sequence", "method"], sort=False):
        first = own.iloc[: own["position"].max()]
        took = ", ".join(f"{row.task} {row.owned_share:.1%}" for row in first.itertuples())
        lines.append(
            f"{sequence}, {method}: {first['free_share'].iloc[0]:.1%} of the weights are left "
            f"free for more tasks ({took}). A larger network, larger ratios or a lower cap "
            "(expected_tasks, tail_share) leave more; what was learned stays."
        )
    return lines
