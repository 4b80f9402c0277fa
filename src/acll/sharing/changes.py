"""What differs between how a result was made and how it would be made now, in words."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from acll.code import PLUG_IN

# sections of a job's parameters whose values stand elsewhere in the configuration
_SECTIONS = {"schedule": "training", "batches": "training", "search": "ratio", "task": "tasks"}
# what the schedule of a rule is that of, where it follows from `training.retrain_epochs`
_OF_SCHEDULE = {
    "search": "release and retraining",
    "prune": "the release",
    "retrain": "the retraining",
}
# parameters of tables and figures that list what is shown; they follow from the configuration
_LISTED = {"nodes", "runs", "searches", "packed", "fronts"}


def changes(before: Mapping[str, Any], after: Mapping[str, Any], rule: str) -> list[str]:
    """Return what differs between the parameters of two jobs of a rule, a line for each value.

    before, after: as `Job.text` has them.
    """
    old, new = before.get("params", {}), after.get("params", {})
    if rule not in ("tables", "figures") or not old.keys() & new.keys() & _LISTED:
        # a value that two parts of the parameters have is told once
        return list(dict.fromkeys(value_changes(before, after, rule)))
    listed = _listed_changes(old, new)
    # the budget of a method that is new, or gone, follows from that
    methods = tuple(f"methods.{line.split()[1]}." for line in listed if line.startswith("method "))
    others = value_changes(_without(before, _LISTED), _without(after, _LISTED), rule)
    rest = [line for line in others if not line.startswith(methods)]
    if not listed and any(old.get(key) != new.get(key) for key in _LISTED):
        rest = ["other networks are shown", *rest]
    return [*listed, *rest]


def _without(text: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    params = {key: value for key, value in text["params"].items() if key not in keys}
    return {**text, "params": params}


def _listed_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what is new and what is gone of what is shown, in words of the configuration."""
    old, new = _shown_parts(before), _shown_parts(after)
    lines = [f"{part} is new" for part in new if part not in old]
    lines += [f"{part} is gone" for part in old if part not in new]
    whole = {line for line in lines if line.startswith("sequence ")}
    own = [line for line in lines if not any(line.endswith(f" of {one}") for one in whole)]
    old_orders, new_orders = _orders(before), _orders(after)
    for sequence in (one for one in old_orders if one in new_orders):
        same = set().union(*old_orders[sequence]) == set().union(*new_orders[sequence])
        if same and old_orders[sequence] != new_orders[sequence]:
            own.append(f"sequence {sequence} has its tasks in other orders")
    return own


def _shown_parts(params: Mapping[str, Any]) -> list[str]:
    """Return the sequences, tasks, methods and seeds of which tables or figures have something."""
    parts: list[str] = []
    for run in params.get("runs", ()):
        sequence = f"sequence {run['sequence']}"
        parts += [sequence, *(f"task {task} of {sequence}" for task in run["tasks"])]
        parts += [f"method {run['method']}", f"seed {run['seed']}"]
    for shown in params.get("packed", ()):
        sequence = f"sequence {shown['sequence']}"
        parts += [sequence, *(f"task {task} of {sequence}" for task in shown["tasks"])]
        parts.append(f"method {shown['method']}")
    return list(dict.fromkeys(parts))


def _orders(params: Mapping[str, Any]) -> dict[str, set[tuple[str, ...]]]:
    """Return the orders in which each sequence is learned, as far as they are listed."""
    orders: dict[str, set[tuple[str, ...]]] = {}
    for one in (*params.get("runs", ()), *params.get("packed", ())):
        orders.setdefault(one["sequence"], set()).add(tuple(one["tasks"]))
    return orders


def input_changes(before: Collection[str], after: Sequence[str]) -> str:
    """Return which inputs are new, or gone, in words. before, after: paths of results."""
    new = [path for path in after if path not in before]
    gone = [path for path in before if path not in after]
    told = []
    for paths, task_words, words in (
        (new, "task {} is new", "now also made from {}"),
        (gone, "task {} is gone", "no longer made from {}"),
    ):
        tasks = [path.stem for path in map(PurePath, paths) if path.match("data/*.json")]
        told += [task_words.format(task) for task in tasks]
        if paths and not tasks:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            told.append(words.format(paths[0] + more))
    return "; ".join(told)


def value_changes(before: Any, after: Any, rule: str, key: str = "") -> Iterator[str]:
    """Yield what differs between two settings, a line for each value. key: of both, with dots."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted(before.keys() | after.keys()):
            inner = f"{key}.{name}" if key else name
            yield from value_changes(before.get(name), after.get(name), rule, inner)
    elif _alike(before, after):
        for one, other in zip(before, after, strict=True):
            yield from value_changes(one, other, rule, key)
    elif before != after:
        yield _change(before, after, rule, key)


def _alike(before: Any, after: Any) -> bool:
    """Return whether both are lists of as many mappings."""
    if not (isinstance(before, list) and isinstance(after, list) and len(before) == len(after)):
        return False
    return all(isinstance(one, Mapping) for one in [*before, *after])


def _change(before: Any, after: Any, rule: str, key: str) -> str:
    """Return one change in words."""
    if key == "code.code":
        return "the code of its step has changed"
    if key.startswith(f"code.{PLUG_IN}"):
        return f"the code of the {key.removeprefix(f'code.{PLUG_IN}')} has changed"
    if key == "external_digest":
        if rule == "adopt":
            return "the file of the packed network has changed"
        of_data = rule in ("prepare", "vary")
        what = "raw data" if of_data else "weights that it starts from"
        return f"the {what} have changed"
    if isinstance(before, list) and isinstance(after, list) and max(len(before), len(after)) > 3:
        added = sum(one not in before for one in after)
        removed = sum(one not in after for one in before)
        shown = _shown(key, rule)
        if added or removed:
            return f"{shown}: {added} added, {removed} removed"
        return f"{shown}: in another order"
    return f"{_shown(key, rule)} {_short(before)} → {_short(after)}"


def _shown(key: str, rule: str) -> str:
    """Return a key of a job's parameters as the configuration has it."""
    key = key.removeprefix("code.").removeprefix("params.")
    if rule == "grow" and key.startswith("search."):
        key, rule = key.removeprefix("search."), "search"  # that of each width
    if key.startswith("budgets."):
        return f"methods.{key.removeprefix('budgets.')}.ratio.budget"
    if key.startswith("fixed."):
        return f"methods.{key.removeprefix('fixed.')}.front"
    if rule in _OF_SCHEDULE and key in ("schedule.epochs", "schedule.begin", "schedule.end"):
        what = _OF_SCHEDULE[rule]
        if key == "schedule.epochs":
            return f"epochs of {what}"
        where = "start" if key == "schedule.begin" else "end"
        return f"{where} of {what} in the course of the learning rate"
    if key == "dense_epochs":
        return "training.epochs"
    section, dot, rest = key.partition(".")
    return _SECTIONS.get(section, section) + dot + rest


def _short(value: Any) -> str:
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
