"""Make the network wider where a task misses its goal within its cap, and learn the task anew."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from acll.files import checkpoint_of, write_json, write_text
from acll.methods.base import Before
from acll.networks.partition import partition
from acll.networks.spec import LARGEST_WIDTH
from acll.packing.ownership import State, free, starting_state
from acll.packing.task_state_file import load_state, save_state
from acll.packing.tensor_file import content_key
from acll.parameters.grow import GrowParams
from acll.steps._run import run_step
from acll.steps._setup import free_of, learner_of, packed_at
from acll.steps.search import DenseTask, Found, search_dense
from acll.training.checkpoint import Checkpoint
from acll.training.loop import FitConfig, TrainingError, fit


def main(
    *,
    dense: Path,
    parent: Path | None,
    trials: Path,
    choice: Path,
    train: Path,
    grown: Path,
    grown_trials: Path,
    grown_choice: Path,
    grown_held: Path,
    params: GrowParams,
    key: str = "",
) -> None:
    """Write the dense network of the width that the task needs, and the search of its ratio there.

    Where the network need not grow, what the search found is handed on, and the other files are
    empty. Where the training of a wider one diverges, the task stays at the width before. One that
    was killed goes on at the width, and after the epoch or trial, that it was at.
    """
    state, _, header = load_state(dense)
    (learned,) = header["tasks"]
    name, width = learned["task"]["name"], learned["width"]
    found = Found(grown_trials, grown_choice, grown_held)
    missed = _missed(_capped(choice), free_of(params.search.node, parent, state, header))
    content = content_key(key, dense, parent, trials, choice, train)
    known = _Widths(checkpoint_of(grown_trials), content)

    def misses_at(width: float) -> bool:
        own = f"{content} {width}"
        task = _trained(params, width, parent, train, grown, own)
        return _missed(search_dense(params.search, task, found, own).capped, task.free)

    if missed:
        width, missed = _grow(name, width, params.grow, known, misses_at)
    if known.diverged:
        print(f"warning: {known.diverged}")
        print(f"{name} stays at width {width:g}, where it misses its goal")
    elif missed:
        print(f"warning: {name}: misses its goal at the largest width, {LARGEST_WIDTH:g}, too")
    made = (grown, grown_trials, grown_choice, grown_held)
    if width == learned["width"]:
        write_text(grown_trials, trials.read_text(encoding="utf-8"))
        write_text(grown_choice, choice.read_text(encoding="utf-8"))
        for path in (grown, grown_held):
            save_state(path, {}, {})
    elif not all(path.exists() for path in made):
        # the job was killed after a wider network had diverged, and what it had made was removed
        misses_at(width)


def _grow(
    name: str, width: float, factor: float, known: "_Widths", misses_at: Callable[[float], bool]
) -> tuple[float, bool]:
    """Widen the network of a task that misses its goal, until it meets it, or diverges.

    factor: of each step. misses_at: learns the task at a width, and returns whether it misses its
    goal there, too. Return the width that the task stays at, and whether it misses its goal there.
    """
    missed = True
    while missed and width < LARGEST_WIDTH:
        known.note(width)
        wider = min(LARGEST_WIDTH, width * factor)
        print(f"{name}: misses its goal within its cap at width {width:g}; it grows to {wider:g}")
        if wider not in known.missed:
            if known.diverged:
                return width, True
            try:
                missed = misses_at(wider)
            except TrainingError as error:
                known.note_divergence(str(error))
                return width, True
        width = wider
    return width, missed


def _capped(choice: Path) -> bool:
    """Return whether the cap decided what the search chose."""
    return bool(json.loads(choice.read_text(encoding="utf-8"))["capped"])


def _missed(capped: bool, free: State) -> bool:
    """Return whether a task needs more weights: its cap decided, or none was free."""
    return capped or not any(bool(mask.any()) for mask in free.values())


def _trained(
    params: GrowParams, width: float, parent: Path | None, train: Path, grown: Path, content: str
) -> DenseTask:
    """Return the task with its dense network of a width, which is written, too.

    content: all that it depends on.
    """
    node = params.search.node.at_width(width)
    learner = learner_of(node, train, params.search.batches)
    packed = packed_at(params.search.node, parent, width)
    zero = params.rule.free_from(len(node.prefix)) == "zero"
    fresh = learner.network.state_dict()
    first = starting_state(packed, learner.info.kind, fresh, start_zero=zero)
    before = Before(packed, {}, node.seed_for(f"method at width {width:g}"))
    start = params.rule.begin([learner], first, before)
    seed = node.seed_for(f"train at width {width:g}")
    config = FitConfig(params.schedule, seed, label=learner.info.name)
    checkpoint = Checkpoint(checkpoint_of(grown), content)
    result = fit(start.learner, start.state, config, start.masks, checkpoint)
    print(f"{learner.info.name}: kept epoch {result.epoch}, validation {result.score:.4f}")
    about = {
        "task": asdict(learner.info),
        "metric": learner.settings.metric,
        "score": result.score,
        "curve": result.curve(),
        "width": width,
    }
    header = {"shared": partition(learner.network).shared, "tasks": [about]}
    save_state(grown, result.state, header)
    return DenseTask(learner, about, result.state, free(packed, learner.info.kind))


class _Widths:
    """The widths at which the task missed its goal, in a file, and whether a wider one diverged.

    diverged: what was said of the next width; empty where nothing was.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.missed: list[float] = []
        self.diverged = ""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["key"] == key:
                self.missed = [float(width) for width in content["missed"]]
                self.diverged = str(content["diverged"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none yet, or of another job

    def note(self, width: float) -> None:
        """Note a width before the next one is tried: the last one is never left out."""
        if width not in self.missed:
            self.missed.append(width)
            self.write()

    def note_divergence(self, said: str) -> None:
        """Note what was said when the training of the next width diverged."""
        self.diverged = said
        self.write()

    def write(self) -> None:
        """Write the file."""
        content = {"key": self.key, "missed": self.missed, "diverged": self.diverged}
        write_json(self.path, content)


if __name__ == "__main__":
    run_step(main)
