"""What the benchmarks of the search share: small real tasks, and a dense network of each."""

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from data import CLASSES as CAMVID

from acll.code import code_of
from acll.config.checks import parse
from acll.config.configuration import AnyTask, Configuration
from acll.data import prepared
from acll.data.batches import split_of
from acll.data.preparation import prepare
from acll.files import write_json
from acll.methods._free_weights import TrainFreeWeights
from acll.methods.base import Before
from acll.networks.spec import Network
from acll.packing.ownership import State, free, starting_state
from acll.packing.task_state_file import load_state, save_state
from acll.parameters.node import NodeParams
from acll.search.choice import tolerance_of
from acll.search.retraining import Retraining, search_task, trial_runner
from acll.search.run import Choice, search
from acll.search.settings import Search
from acll.search.trials import TrialLog
from acll.seeds import derived
from acll.settings import Criterion, Release, Reuse, Scope
from acll.steps._setup import learner_of, packed_before
from acll.training.checkpoint import Checkpoint
from acll.training.evaluate import evaluated
from acll.training.learned import Scored
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, fit
from acll.training.metrics import score, standard_error
from acll.training.release import Pruning
from acll.training.settings import Schedule, Training

ROOT = Path(__file__).parents[1]
CRITERION: Criterion = "learned"
SCOPE: Scope = "layer"  # by magnitude
RELEASE: Release = "gradual"
DISTILL = False
MNIST = {"source": "image_folder", "path": "mnist", "image_size": 16}
CIFAR = {"source": "image_folder", "path": "cifar10", "image_size": 24, "train_samples": 3000,
         "training": {"augmentation": ["flip", "shift"]}}  # fmt: skip
MASKS = {"source": "mask_folder", "training": {"batch_size": 16, "augmentation": ["flip"]}}
TASKS: dict[str, dict[str, Any]] = {
    "mnist": MNIST,
    "cifar10": CIFAR,
    "digits": {"source": "digits", "image_size": 16},
    "people": MASKS | {"path": "people", "image_size": 48, "classes": ["ground", "person"]},
    "camvid": MASKS | {"path": "camvid", "image_size": [32, 48], "classes": CAMVID},
}
TRAINING = {"epochs": 25, "loss": "cross_entropy_dice"}


def arguments(doc: str | None) -> argparse.Namespace:
    """Return what the command line gives: `data`, the folder of the real data, and `processes`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=lambda path: Path(path).resolve(), help="the real data")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def processes(given: argparse.Namespace) -> ProcessPoolExecutor:
    """Return processes that share nothing with this one, as many as were asked for."""
    return ProcessPoolExecutor(given.processes, mp_context=get_context("spawn"))


@dataclass(frozen=True)
class Dense:
    """A task with its dense network: all that a search of its ratio needs.

    criterion: how the network was trained, and what tells which of its weights are released.
    """

    criterion: Criterion
    learner: TaskLearner
    training: Training
    state: State
    free: State
    seed: int
    tests: Path
    reuse: Reuse = "all"  # of weights of earlier tasks, by scores

    def retraining(
        self, of_release: int, of_retraining: int, folder: Path, distill: bool = DISTILL
    ) -> Retraining:
        """Return how trials release and retrain. folder: where they keep the path of release."""
        return Retraining(
            self.learner,
            self.training.for_retraining(),
            self.state,
            self.way,
            RELEASE,
            distill,
            (of_release, of_retraining),
            (Checkpoint(folder / "path", ""), None),
        )

    @property
    def way(self) -> Pruning | Scored:
        """What is free, and which of it is released."""
        if self.criterion == "learned":
            return Scored(self.free, self.reuse)
        return Pruning(self.free, SCOPE)

    def whole(self) -> TaskLearner:
        """Return the learner of the dense network."""
        if isinstance(self.way, Scored):
            return self.way.dense(self.learner)
        return self.learner

    def search(self, settings: Search) -> Choice:
        """Search without a cap, quietly; return the choice."""
        seeds = [derived(self.seed, what) for what in ("prune", "retrain", "search")]
        with quiet(), tempfile.TemporaryDirectory() as scratch:
            retraining = self.retraining(*seeds[:2], Path(scratch))
            task = search_task(retraining, settings, self.training.epochs, None, seeds[2])
            return search(settings, task, TrialLog(Path(scratch) / "trials.json", ""))[0]

    def validated(self) -> tuple[float, float]:
        """Return the validation score of the dense network, and its standard error."""
        own = self.whole()
        own.network.load_state_dict(self.state)
        seen = evaluated(own.network, own.validation, own.info, own.device)
        return score(seen), standard_error(seen, 0)

    def swept(self, shares: Sequence[float], seed: int, distill: bool = DISTILL) -> list[float]:
        """Return the validation score of each share; by magnitude on one path of release."""
        scores = []
        with quiet(), tempfile.TemporaryDirectory() as scratch:
            for number, kept in enumerate(shares):
                own = derived(seed, "retrain", number)
                run_trial = trial_runner(self.retraining(seed, own, Path(scratch), distill))
                scores.append(run_trial(kept, -1.0).score)  # a threshold that each one reaches
        return scores

    def tested(self, kept: float, seed: int) -> tuple[float, float]:
        """Return (test score, its standard error) after release and retraining."""
        schedule = self.training.for_retraining()
        return self.test(self.lighter(kept, schedule, RELEASE, seed, DISTILL)[0])

    def lighter(
        self, kept: float, schedule: Schedule, how: Release, seed: int, distill: bool
    ) -> tuple[State, State]:
        """Return state and masks after release and retraining: those of a trial of this share."""
        seeds = derived(seed, "release"), seed
        retraining = Retraining(self.learner, schedule, self.state, self.way, how, distill, seeds)
        found: list[tuple[State, State]] = []
        run_trial = trial_runner(
            retraining, lambda _, result, keep: found.append((dict(result.state), keep))
        )
        with quiet():
            run_trial(kept, -1.0)  # a threshold that each one reaches
        (lighter,) = found
        return lighter

    def test(self, state: State) -> tuple[float, float]:
        """Return (test score, its standard error) of a state.

        This is the only place where a test split is read.
        """
        self.learner.network.load_state_dict(state)
        prepared.allow_test()
        tensors, header = prepared.read_prepared(self.tests)
        seen = evaluated(
            self.learner.network, split_of(tensors, "test"), header, self.learner.device
        )
        return score(seen), standard_error(seen, self.seed)

    def tolerance(self, error: float, settings: Search) -> float:
        """Return the tolerance, as the search has it. error: standard error of the reference."""
        return tolerance_of(error, settings.z, settings.min_tolerance, settings.max_tolerance)


def dense(
    name: str,
    task: dict[str, Any],
    seed: int,
    data: Path,
    folder: Path,
    training: dict[str, Any],
    criterion: Criterion = CRITERION,
) -> Dense:
    """Prepare a task and train its dense network, or take both from `folder`."""
    configuration = _configuration(name, task, training)
    files = [folder / f"{name}.{part}" for part in ("train.safetensors", "test.safetensors", "csv")]
    parsed: AnyTask = configuration.tasks[name]
    if not files[1].exists():
        with quiet():
            prepare(name, parsed, data, *files, 1, [3])
    kind = "classification" if parsed.kind == "classification" else "segmentation"
    network: Network = configuration.networks["small" if kind == "classification" else "unet"]
    own: Training = configuration.training_of(name)
    node = NodeParams(network=network, method="adaptive", seed=seed, prefix=[name], threads=1)
    learner = learner_of(node, files[0], own.batches(kind), pretrained=True)
    before = packed_before(node, None)
    masks = free(before, learner.info.kind)
    path = folder / f"{name}.{seed}.{criterion}.safetensors"
    if not path.exists():
        state = starting_state(before, learner.info.kind, learner.network.state_dict())
        rule = TrainFreeWeights(type="packing", later="fresh", criterion=criterion, reuse="all")
        start = rule.begin([learner], state, Before(before, {}, node.seed_for("method")))
        with quiet():
            config = FitConfig(own.for_training(), node.seed_for("train"))
            fitted = fit(start.learner, start.state, config, start.masks)
        save_state(path, fitted.state, {"score": fitted.score})
    return Dense(criterion, learner, own, load_state(path)[0], masks, seed, files[1])


def _configuration(name: str, task: dict[str, Any], training: dict[str, Any]) -> Configuration:
    return parse(
        {
            "name": "benchmark",
            "tasks": {name: task},
            "networks": {
                "small": {"backbone": "resnet_small"},
                "unet": {"decoder": "unet", "encoder": "resnet_small"},
            },
            "sequences": {
                "one": {"network": "unet" if "classes" in task else "small", "tasks": [name]}
            },
            "methods": {"adaptive": {"ratio": {"search": "tpe"}}},
            "training": training,
        }
    )


def cache_of(name: str) -> Path:
    """Return the folder of what a benchmark has ended, made with the code of steps as it is.

    Results of other code are not gone on with.
    """
    code = code_of("acll.steps.train", "acll.steps.search", "acll.steps.retrain")["code"]
    return ROOT / ".cache/benchmarks" / name / code


def remembered(path: Path, make: Callable[[], Any]) -> Any:
    """Return a result from its file; make it and put it there where there is none.

    So a benchmark that is started again goes on.
    """
    if not path.exists():
        write_json(path, make())
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def quiet() -> Any:
    """Leave out the lines of each epoch; use one thread, as the jobs of a run do."""
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
