"""Training, searching and serving on a GPU: how fast, in how much memory, and to the same bits?

    python benchmarks/gpu.py --out docs/benchmarks/gpu.csv     at most eight minutes on one card
    python benchmarks/gpu.py --miniature --device cpu --out x.csv     tiny networks, a few seconds

Nothing is read or fetched: networks start from random weights, data are made here. Groups:

- `repeat`: does the same training give the same bits, goes one that was killed on to the same
  bits, and do frozen weights and what an earlier task gives stay equal to the bit?
- `step`: the project's loop with half of the shared weights frozen (`masked`) against a plain
  PyTorch loop (`plain`), both as `prepare_process` sets PyTorch, and a plain loop as PyTorch sets
  itself, with the search for the fastest convolution (`plain_defaults`). They take turns.
- `data`: training from a prepared file against training from batches that lie on the card.
- `serve`: a packed network from file to card, and predictions.
- `search`: a trial of the search, and its parts; release and commit.
- `compile`: `step` with the network compiled, if there is time.

dtype: `float32`; `tf32` (matrix units in float32); `default` (what PyTorch does with float32:
TF32 in convolutions alone); `bfloat16` (autocast). `repeatable`: whether all turns ended in the
same bits. Steps are timed by events on the card: medians of all steps but the first two of a turn.
A group that fails writes a row `failed` and its traceback to standard error; the exit code is 1.
"""

# functions that use the variable of a loop are called at once
# ruff: noqa: B023

import argparse
import contextlib
import csv
import io
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acll
from acll.data.batches import Split, normalised, splits_of, training_batches
from acll.data.prepared import IGNORE, Content, TaskInfo, write_prepared
from acll.networks.build import TaskNetwork, build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork, Network, body_kind
from acll.packing.load import restore_network
from acll.packing.ownership import Packed, State, commit, digest, empty, free, starting_state
from acll.packing.packed_file import read_packed, write_packed
from acll.search.retraining import Retraining, trial_runner
from acll.serving.predictions import Classified
from acll.settings import Kind
from acll.steps._setup import task_record
from acll.training.checkpoint import Checkpoint, snapshot
from acll.training.evaluate import evaluated
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, FitResult, Learner, fit
from acll.training.losses import loss_of
from acll.training.metrics import EvalResult
from acll.training.process import prepare_process
from acll.training.release import Pruning
from acll.training.settings import Batches, Schedule, Training

Data = list[tuple[Tensor, Tensor]]  # batches
COLUMNS = (
    "device",
    "torch",
    "group",
    "network",
    "dtype",
    "variant",
    "measure",
    "value",
    "unit",
    "repeatable",
)
DTYPES = {"cuda": ("float32", "tf32", "bfloat16"), "cpu": ("float32",)}
AS_CONFIGURED = {
    "cuda": ("default", "bfloat16"),
    "cpu": ("default",),
}  # without, with `mixed_precision`
ALL_AUGMENTATION = ["flip", "shift", "brightness"]
MINUTES = 8.0  # no group begins after these
COMPILING = 2.5  # minutes that the last group needs
IN_TURN = 3  # turns of each variant
ON_CARD = 4  # batches that lie on the card


@dataclass(frozen=True)
class Case:
    """A network with the images that it is measured on. steps: of a turn. train: images of a
    training split of its own, trial: of the one that trials learn from."""

    name: str
    spec: Network
    kind: Kind
    size: int
    batch: int
    classes: int
    steps: int
    train: int
    trial: int

    def network(self, seed: int = 0) -> TaskNetwork:
        return build(self.spec, self.kind, self.classes, seed, pretrained=False)


CASES = (
    Case(
        "resnet50",
        BackboneNetwork(backbone="resnet50"),
        "classification",
        size=224,
        batch=128,
        classes=100,
        steps=7,
        train=2048,
        trial=1024,
    ),
    Case(
        "unet_resnet34",
        DecoderNetwork(decoder="unet", encoder="resnet34"),
        "segmentation",
        size=256,
        batch=32,
        classes=11,
        steps=7,
        train=512,
        trial=256,
    ),
    Case(
        "resnet_small",
        BackboneNetwork(backbone="resnet_small"),
        "classification",
        size=32,
        batch=128,
        classes=10,
        steps=20,
        train=20480,
        trial=4096,
    ),
)
MINIATURES = (
    Case(
        "resnet_small",
        BackboneNetwork(backbone="resnet_small"),
        "classification",
        size=16,
        batch=4,
        classes=3,
        steps=4,
        train=16,
        trial=16,
    ),
    Case(
        "unet_small",
        DecoderNetwork(decoder="unet", encoder="resnet_small"),
        "segmentation",
        size=16,
        batch=4,
        classes=3,
        steps=4,
        train=16,
        trial=16,
    ),
)


class Rows:
    """The table as it grows."""

    def __init__(self, out: Path, device: torch.device) -> None:
        self.out, self.device = out, device
        self.name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        group: str,
        network: str,
        dtype: str,
        variant: str,
        measure: str,
        value: float,
        unit: str,
        repeatable: bool | None = None,
    ) -> None:
        values = (group, network, dtype, variant, measure, f"{value:.6g}", unit)
        said = "" if repeatable is None else "yes" if repeatable else "no"
        row = dict(zip(COLUMNS, (self.name, torch.__version__, *values, said)))
        self.rows.append(row)
        line = f"  {network:14} {dtype:9} {variant:24} {measure:28} {value:12.5g} {unit:9} {said}"
        print(line, flush=True)

    def fact(self, group: str, network: str, dtype: str, variant: str, what: str, is_so: bool):
        """Add a row that says whether something is so, as 1 or 0."""
        self.add(group, network, dtype, variant, what, float(is_so), "1 is yes")

    def write(self) -> None:
        """Write what there is so far, so that nothing is lost where it is stopped."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.out.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)


@dataclass(frozen=True)
class Bench:
    """What every group gets. left: gives the minutes that are left."""

    rows: Rows
    cases: tuple[Case, ...]
    device: torch.device
    folder: Path
    left: Callable[[], float]

    def synchronised(self) -> float:
        """Return the seconds of a clock, once the card has done all that it was told to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, function: Callable[[], object]) -> float:
        start = self.synchronised()
        function()
        return self.synchronised() - start

    def peak_begins(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_mb(self) -> float:
        """Return the largest memory on the card since `peak_begins`; 0 on a CPU."""
        cuda = self.device.type == "cuda"
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if cuda else 0.0


# --------------------------------------------------------------------------------------------------
# what is trained, and how steps are timed


@contextlib.contextmanager
def arithmetic(dtype: str) -> Iterator[None]:
    """Set what float32 means on the card; `default` and `bfloat16` leave it as it is."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    if dtype in ("float32", "tf32"):
        matmul.allow_tf32 = cudnn.allow_tf32 = dtype == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextlib.contextmanager
def pytorch_defaults() -> Iterator[None]:
    """Let PyTorch choose what is fastest, whether or not it is repeatable."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


class Clock:
    """Moments on the card, or on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[Any] = []

    def mark(self) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def milliseconds(self) -> list[float]:
        """Return what lay between the marks."""
        if not self.cuda:
            return [1e3 * (after - before) for before, after in pairwise(self.marks)]
        torch.cuda.synchronize()
        return [before.elapsed_time(after) for before, after in pairwise(self.marks)]


@dataclass(frozen=True)
class OnCard:
    """A learner whose batches lie on the card."""

    network: nn.Module
    device: torch.device
    data: Data
    loss: Callable[[Tensor, Tensor], Tensor]
    count: int
    half: bool

    def steps(self) -> int:
        return self.count

    def losses(self, seed: int, epoch: int) -> Iterator[Iterator[Tensor]]:
        for step in range(self.count):
            images, labels = self.data[step % len(self.data)]
            with torch.autocast(self.device.type, torch.bfloat16, self.half):
                loss = self.loss(self.network(images).float(), labels)
            yield iter([loss])

    def validate(self) -> tuple[EvalResult, ...]:
        return (EvalResult("accuracy", 2, cells=np.zeros(2, np.int64)),)


@dataclass(frozen=True)
class Timed:
    """A learner whose steps are timed, and that is not validated."""

    learner: Learner
    clock: Clock

    @property
    def network(self) -> nn.Module:
        return self.learner.network

    @property
    def device(self) -> torch.device:
        return self.learner.device

    def steps(self) -> int:
        return self.learner.steps()

    def losses(self, seed: int, epoch: int) -> Iterator[Iterator[Tensor]]:
        for of_step in self.learner.losses(seed, epoch):
            losses = list(of_step)
            self.clock.mark()
            yield iter(losses)

    def validate(self) -> tuple[EvalResult, ...]:
        return (EvalResult("accuracy", 2, cells=np.zeros(2, np.int64)),)


def schedule_of(epochs: float = 1.0, **settings: Any) -> Schedule:
    """Return a schedule of SGD. settings: of `training` in a configuration."""
    training = Training(**({"optimizer": "sgd", "learning_rate": 0.01} | settings))
    return training.for_training().model_copy(update={"epochs": epochs})


def settings_of(case: Case, **settings: Any) -> Batches:
    return Training(**({"batch_size": case.batch} | settings)).batches(case.kind)


def fitted(
    learner: Learner,
    state: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    epochs: float = 1.0,
    keep_state: bool = False,
    schedule: Schedule | None = None,
    **more: Any,
) -> FitResult:
    """Train without a word."""
    config = FitConfig(schedule or schedule_of(epochs), seed=1, keep_state=keep_state)
    with contextlib.redirect_stdout(io.StringIO()):
        return fit(learner, state, config, masks, **more)


def half_frozen(network: TaskNetwork) -> dict[str, Tensor]:
    """Return masks under which half of each shared weight may move, as for a second task."""
    generator = torch.Generator().manual_seed(0)
    state = network.state_dict()
    return {
        name: torch.rand(state[name].shape, generator=generator) < 0.5
        for name in partition(network).shared
    }


def made_split(case: Case, count: int, seed: int = 0) -> Split:
    """Return random images, which show their class by their level of grey."""
    generator = np.random.default_rng(seed)
    shape = (count,) if case.kind == "classification" else (count, case.size, case.size)
    labels = generator.integers(0, case.classes, shape, np.uint8)
    noise = generator.integers(0, 128, (count, 3, case.size, case.size), np.uint8)
    level = (100 * labels.astype(np.float32) / case.classes).astype(np.uint8)
    noise += level.reshape(count, 1, *(shape[1:] or (1, 1)))
    typed = labels.astype(np.int64) if case.kind == "classification" else labels
    return Split(torch.from_numpy(noise), torch.from_numpy(typed))


def info_of(case: Case, name: str = "first") -> TaskInfo:
    classes = tuple(f"class_{number}" for number in range(case.classes))
    size = (case.size, case.size)
    return TaskInfo(name, case.kind, classes, size, (0.45,) * 3, (0.2,) * 3)


def learner_of(
    bench: Bench, case: Case, count: int, seed: int = 0, name: str = "first", **settings: Any
) -> TaskLearner:
    """Return the learner of a task whose data lie in main memory."""
    train, validation = made_split(case, count, seed), made_split(case, case.batch, seed + 1)
    info = info_of(case, name)
    own = settings_of(case, **settings)
    return TaskLearner(case.network(seed), train, validation, info, own, bench.device)


def batches_on_card(bench: Bench, case: Case) -> Data:
    """Return float images, as the network takes them, with their labels."""
    split, info = made_split(case, ON_CARD * case.batch), info_of(case)
    return [
        (normalised(images, info, bench.device), labels.to(bench.device).long())
        for images, labels in zip(split.images.split(case.batch), split.labels.split(case.batch))
    ]


def on_card(network: nn.Module, case: Case, data: Data, dtype: str, device):
    """Return a learner with the project's loss."""
    loss = loss_of(case.kind, settings_of(case), None)
    return OnCard(network, device, data, loss, case.steps, dtype == "bfloat16")


def plain_turn(
    network: nn.Module,
    case: Case,
    data: Data,
    dtype: str,
    clock: Clock,
) -> None:
    """Make the steps of a turn as tutorials of PyTorch do."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    ignored = IGNORE if case.kind == "segmentation" else -1
    kind = data[0][0].device.type
    network.train()
    for step in range(case.steps):
        images, labels = data[step % len(data)]
        with torch.autocast(kind, torch.bfloat16, dtype == "bfloat16"):
            outputs = network(images)
        loss = F.cross_entropy(outputs.float(), labels, ignore_index=ignored)
        clock.mark()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def unmoved(after: State, before: State, masks: State) -> bool:
    """Return whether all that the masks freeze is equal bit for bit."""
    return all(
        torch.equal(_bits(after[name][~mask]), _bits(before[name][~mask]))
        for name, mask in masks.items()
    )


def _bits(values: Tensor) -> Tensor:
    return values.view(torch.int32)


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two state dicts are equal bit for bit."""
    return digest(one) == digest(other)


# --------------------------------------------------------------------------------------------------
# groups


def repeat(bench: Bench) -> None:
    """Whether trainings are repeatable and resumable, and what is frozen stays."""
    for case in bench.cases[:2]:
        for dtype in AS_CONFIGURED[bench.device.type]:
            _repeat(bench, case, dtype)
        _forgotten(bench, case)


def _repeat(bench: Bench, case: Case, dtype: str) -> None:
    half = dtype == "bfloat16"
    kinds: dict[str, dict[str, Any]] = {"augmented": {"augmentation": ALL_AUGMENTATION}}
    if case.kind == "segmentation" and not half:
        kinds["dice"] = {"loss": "cross_entropy_dice"}
        kinds["balanced"] = {"class_weights": "balanced"}
    say = bench.rows.fact
    for kind, settings in kinds.items():
        learner = learner_of(bench, case, 2 * case.batch, mixed_precision=half, **settings)
        state, masks = snapshot(learner.network.state_dict()), half_frozen(learner.network)
        schedule = schedule_of(2, optimizer="adamw", learning_rate=1e-3)

        def run(**more: Any) -> FitResult:
            return fitted(learner, state, masks, keep_state=True, schedule=schedule, **more)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            first = run()
            first_end = snapshot(learner.network.state_dict())
        second = run()
        second_end = snapshot(learner.network.state_dict())
        same = same_bits(first_end, second_end)
        say("repeat", case.name, dtype, kind, "training_equal_bits", same)
        same = [row["loss"] for row in first.history] == [row["loss"] for row in second.history]
        say("repeat", case.name, dtype, kind, "losses_equal", same)
        frozen = unmoved(first_end, state, masks)
        say("repeat", case.name, dtype, kind, "frozen_weights_equal_bits", frozen)
        for name in sorted({_operation(str(one.message)) for one in caught} - {""}):
            say("repeat", case.name, dtype, kind, f"warns of {name}", True)

        path = bench.folder / f"{case.name}_{dtype}_{kind}.checkpoint"
        with contextlib.suppress(KeyboardInterrupt):
            run(checkpoint=_Killed(path, "key"))
        run(checkpoint=Checkpoint(path, "key"))
        resumed = snapshot(learner.network.state_dict())
        same = same_bits(first_end, resumed)
        say("repeat", case.name, dtype, kind, "resumed_equal_bits", same)
        path.unlink()
        results = [
            evaluated(learner.network, learner.validation, learner.info, bench.device)
            for _ in range(2)
        ]
        same = all(
            np.array_equal(getattr(results[0], part), getattr(results[1], part))
            for part in ("cells", "counts")
            if getattr(results[0], part) is not None
        )
        say("repeat", case.name, dtype, kind, "evaluation_equal", same)


class _Killed(Checkpoint):
    """The checkpoint of a training that is killed after its first epoch."""

    def write(self, *given: Any) -> None:
        super().write(*given)
        raise KeyboardInterrupt


def _operation(message: str) -> str:
    """Return the operation that a warning says has no repeatable form."""
    return message.split()[0] if "deterministic" in message else ""


def _forgotten(bench: Bench, case: Case) -> None:
    """Learn two tasks as the steps do, and look at the first one before and after."""
    packed = None
    images = batches_on_card(bench, case)[0][0]
    outputs: list[Tensor] = []
    states: list[str] = []
    for seed, name in enumerate(("first", "second")):
        packed, _ = _learned(bench, case, packed, seed, name)
        network, state = restore_network(packed, "first")
        with torch.no_grad():
            outputs.append(network.to(bench.device)(images))
        states.append(digest(state))
    say = bench.rows.fact
    say(
        "repeat", case.name, "default", "two tasks", "first_task_equal_bits", states[0] == states[1]
    )
    same = torch.equal(outputs[0], outputs[1])
    say("repeat", case.name, "default", "two tasks", "first_outputs_equal_bits", same)


def _learned(
    bench: Bench, case: Case, packed: Packed | None, seed: int, name: str
) -> tuple[Packed, dict[str, float]]:
    """Train, release, retrain and commit one more task; return the network, and the seconds of
    release and commit."""
    learner = learner_of(bench, case, 2 * case.batch, seed, name)
    if packed is None:
        whole = build(case.spec, body_kind(case.spec), 2, 0, pretrained=False)
        state = whole.state_dict()
        shared = {name: state[name] for name in partition(whole).shared}
        packed = empty(case.spec.model_dump(mode="json"), shared, "packing", 0)
    masks = free(packed, case.kind)
    start = starting_state(packed, case.kind, learner.network.state_dict())
    dense = fitted(learner, start, masks, keep_state=True).state
    begin = time.perf_counter()
    smaller, keep = Pruning(masks, "global").at_once(dense, 0.6)
    release = time.perf_counter() - begin
    result = fitted(learner, smaller, keep, keep_state=True)
    metric = learner.settings.metric
    record = task_record(learner.info, metric, result.score, (), {"ratio": 0.6})
    begin = time.perf_counter()
    after = commit(packed, record, result.state, keep)
    return after, {"release": release, "commit": time.perf_counter() - begin}


def step(bench: Bench) -> None:
    """The masked step against a plain one."""
    for case in bench.cases:
        data = batches_on_card(bench, case)
        for dtype in DTYPES[bench.device.type]:
            for last in (False, True):
                with arithmetic(dtype):
                    _steps(bench, "step", case, data, dtype, last, compiled=False)


@dataclass
class Turns:
    """What the turns of a variant gave: milliseconds of the steps, digests of the ends."""

    times: list[float] = field(default_factory=list)
    ends: set[str] = field(default_factory=set)
    peak: float = 0.0
    frozen: bool = True  # whether what may not move has not moved


def _steps(
    bench: Bench, group: str, case: Case, data: Data, dtype: str, last: bool, compiled: bool
) -> None:
    """Time the steps of each variant in turn. last: whether channels come last in memory."""
    layout = torch.channels_last if last else torch.contiguous_format
    data = [(images.contiguous(memory_format=layout), labels) for images, labels in data]
    variants = ["plain", "masked"]
    if bench.device.type == "cuda" and dtype != "float32" and not compiled:
        variants.append("plain_defaults")
    networks: dict[str, nn.Module] = {}
    for variant in variants:
        networks[variant] = case.network().to(bench.device, memory_format=layout)
        if compiled:
            networks[variant].compile()
    own = case.network()
    masks, start = half_frozen(own), snapshot(own.state_dict())
    found = {variant: Turns() for variant in variants}
    for turn in range(IN_TURN + compiled):
        for variant, network in networks.items():
            clock = Clock(bench.device)
            bench.peak_begins()
            if variant == "masked":
                learner = Timed(on_card(network, case, data, dtype, bench.device), clock)
                fitted(learner, start, masks)
            else:
                network.load_state_dict(start)
                chosen = pytorch_defaults() if variant != "plain" else contextlib.nullcontext()
                with chosen:
                    plain_turn(network, case, data, dtype, clock)
            taken, own_turns = clock.milliseconds(), found[variant]
            if turn >= compiled:  # the first turn compiles
                own_turns.times += taken[1:]
            own_turns.peak = max(own_turns.peak, bench.peak_mb())
            after = snapshot(network.state_dict())
            own_turns.ends.add(digest(after))
            if variant == "masked":
                own_turns.frozen &= unmoved(after, start, masks)
    words = ["channels_last"] * last + ["compiled"] * compiled
    _add_steps(bench.rows, group, case, dtype, words, found)


def _add_steps(
    rows: Rows, group: str, case: Case, dtype: str, words: list[str], found: dict[str, Turns]
) -> None:
    plain = float(np.median(found["plain"].times))
    for variant, turns in found.items():
        said = " ".join([variant, *words])
        middle, same = float(np.median(turns.times)), len(turns.ends) == 1
        rows.add(group, case.name, dtype, said, "step", middle, "ms", same)
        rows.add(group, case.name, dtype, said, "images", 1e3 * case.batch / middle, "1/s", same)
        rows.add(group, case.name, dtype, said, "peak_memory", turns.peak, "MiB")
        if variant == "masked":
            rows.add(group, case.name, dtype, said, "step_over_plain", middle / plain, "ratio")
            rows.fact(group, case.name, dtype, said, "frozen_weights_equal_bits", turns.frozen)


def data(bench: Bench) -> None:
    """Whether a prepared file feeds the card."""
    for case in bench.cases:
        path = _file_of(bench, case)
        train, validation, info = splits_of(path)
        for augmentation in ([], ["flip", "shift"], ALL_AUGMENTATION):
            said = "+".join(augmentation) or "no augmentation"
            taken = [
                bench.seconds(lambda: _epoch_of(bench, case, train, info, augmentation))
                for _ in range(2)
            ]
            speed = len(train) / min(taken)
            bench.rows.add("data", case.name, "float32", said, "batches_alone", speed, "1/s")
        batches = batches_on_card(bench, case)
        for dtype in AS_CONFIGURED[bench.device.type]:
            own = settings_of(
                case, augmentation=["flip", "shift"], mixed_precision=dtype == "bfloat16"
            )
            network = case.network()
            start, masks = snapshot(network.state_dict()), half_frozen(network)
            learners: dict[str, Learner] = {
                "on_card": on_card(network, case, batches, dtype, bench.device),
                "prepared_file": TaskLearner(network, train, validation, info, own, bench.device),
            }
            means = {}
            for variant, learner in learners.items():
                taken = []
                for _ in range(2):
                    clock = Clock(bench.device)
                    fitted(Timed(learner, clock), start, masks)
                    # a mean: what the card waits for counts, however seldom it does
                    taken.append(float(np.mean(clock.milliseconds()[1:])))
                means[variant] = 1e3 * case.batch / min(taken)
                bench.rows.add(
                    "data", case.name, dtype, variant, "masked_training", means[variant], "1/s"
                )
            fed = means["prepared_file"] / means["on_card"]
            bench.rows.add("data", case.name, dtype, "prepared_file", "fed", fed, "ratio")
        taken = [
            bench.seconds(lambda: evaluated(network, train, info, bench.device)) for _ in range(2)
        ]
        speed = len(train) / min(taken)
        bench.rows.add("data", case.name, "default", "prepared_file", "evaluation", speed, "1/s")
        path.unlink()


def _file_of(bench: Bench, case: Case) -> Path:
    """Return a prepared file."""
    splits = {"train": made_split(case, case.train), "val": made_split(case, case.batch, 1)}
    contents = {}
    for name, split in splits.items():
        labels = split.labels.numpy()
        masks = case.kind == "segmentation"
        contents[name] = Content(
            [str(number) for number in range(len(split))],
            list(split.images.numpy()),
            "uint8",
            3,
            None if masks else labels,
            list(labels) if masks else None,
        )
    path = bench.folder / f"{case.name}.train.safetensors"
    write_prepared(path, info_of(case), contents)
    return path


def _epoch_of(bench: Bench, case: Case, split: Split, info: TaskInfo, augmentation: Any) -> None:
    for _ in training_batches(split, info, case.batch, augmentation, 0, 0, bench.device):
        pass


def serve(bench: Bench) -> None:
    """A packed network from its file to the card, and what it predicts."""
    add = bench.rows.add
    for case in bench.cases[:2]:
        packed: Packed | None = None
        for seed, name in enumerate(("first", "second")):
            packed, _ = _learned(bench, case, packed, seed, name)
        assert packed is not None
        path = bench.folder / f"{case.name}.safetensors"
        taken = bench.seconds(lambda: write_packed(path, packed))
        add("serve", case.name, "float32", "two tasks", "write", taken, "s")
        add("serve", case.name, "float32", "two tasks", "file", path.stat().st_size / 2**20, "MiB")
        bench.peak_begins()
        loads = [
            bench.seconds(lambda: acll.load(path).network("second").to(bench.device))
            for _ in range(3)
        ]
        add("serve", case.name, "float32", "second task", "load_to_device", min(loads), "s")
        add("serve", case.name, "float32", "second task", "load_memory", bench.peak_mb(), "MiB")

        opened, split = acll.load(path), made_split(case, 4 * case.batch, 2)
        images = list(split.images.numpy().transpose(0, 2, 3, 1))
        for dtype in ("default", "float32"):
            with arithmetic(dtype):
                opened.predict("second", images[:2], device=bench.device)
                bench.peak_begins()
                start = bench.synchronised()
                found: Any = opened.predict("second", images, device=bench.device)
                speed = len(images) / (bench.synchronised() - start)
                again: Any = opened.predict("second", images, device=bench.device)
            same = all(np.array_equal(_values(a), _values(b)) for a, b in zip(found, again))
            add("serve", case.name, dtype, "predict", "images", speed, "1/s", same)
            add("serve", case.name, dtype, "predict", "peak_memory", bench.peak_mb(), "MiB")
            few = found[:8]
            cpu: Any = opened.predict("second", images[:8], device="cpu")
            equal = np.mean([np.mean(_labels(a) == _labels(b)) for a, b in zip(few, cpu)])
            add("serve", case.name, dtype, "predict", "labels_as_on_cpu", float(equal), "share")
            if case.kind == "classification":
                apart = max(float(np.abs(_values(a) - _values(b)).max()) for a, b in zip(few, cpu))
                add("serve", case.name, dtype, "predict", "difference_to_cpu", apart, "1")
        path.unlink()


def _values(prediction: Any) -> Any:
    classified = isinstance(prediction, Classified)
    return prediction.probabilities if classified else prediction.mask


def _labels(prediction: Any) -> Any:
    if isinstance(prediction, Classified):
        return prediction.probabilities.argmax()
    return prediction.mask


def search(bench: Bench) -> None:
    """A trial of the search and its parts; release and commit."""
    add = bench.rows.add
    for case in bench.cases[:2]:
        learner = learner_of(bench, case, case.trial, mixed_precision=True)
        network = learner.network
        state = snapshot(network.state_dict())
        masks = {
            name: torch.ones(state[name].shape, dtype=torch.bool)
            for name in partition(network).shared
        }
        for scope in ("global", "layer"):
            taken = bench.seconds(lambda: Pruning(masks, scope).at_once(state, 0.7))
            add("search", case.name, "float32", scope, "release", taken, "s")
        network.to(bench.device)
        copies = [bench.seconds(lambda: network.load_state_dict(state)) for _ in range(3)]
        add("search", case.name, "float32", "state", "copy_to_device", min(copies), "s")
        copies = [bench.seconds(lambda: snapshot(network.state_dict())) for _ in range(3)]
        add("search", case.name, "float32", "state", "copy_kept", min(copies), "s")
        pruning = Pruning(masks, "global")
        retraining = Retraining(learner, schedule_of(), state, pruning, "once", False, (1, 2))
        run_trial = trial_runner(retraining)
        bench.peak_begins()
        found, seconds = [], []
        for _ in range(3):  # the first one warms up
            start = bench.synchronised()
            with contextlib.redirect_stdout(io.StringIO()):
                found.append(run_trial(0.3, 0.0))
            seconds.append(bench.synchronised() - start)
        same = found[1] == found[2]
        add("search", case.name, "bfloat16", "one epoch", "trial", min(seconds[1:]), "s", same)
        speed = case.trial / min(seconds[1:])
        add("search", case.name, "bfloat16", "one epoch", "trial_images", speed, "1/s", same)
        add("search", case.name, "bfloat16", "one epoch", "peak_memory", bench.peak_mb(), "MiB")
        packed, taken_by = _learned(bench, case, None, 0, "first")
        add("search", case.name, "float32", "global", "commit", taken_by["commit"], "s")
        path = bench.folder / "network.safetensors"
        write_packed(path, packed)
        taken = bench.seconds(lambda: read_packed(path))
        add("search", case.name, "float32", "one task", "read_packed", taken, "s")
        path.unlink()


def compiled(bench: Bench) -> None:
    """The masked step of a compiled network."""
    if bench.device.type != "cuda":
        return _uncompiled(bench, "not on a CPU")
    if bench.left() < COMPILING:
        return _uncompiled(bench, "no time left")
    case = bench.cases[0]
    batches = batches_on_card(bench, case)
    return _steps(bench, "compile", case, batches, "bfloat16", last=True, compiled=True)


def _uncompiled(bench: Bench, why: str) -> None:
    bench.rows.add("compile", bench.cases[0].name, "bfloat16", why, "skipped", 1, "1 is yes")


GROUPS: dict[str, Callable[[Bench], None]] = {
    "repeat": repeat,
    "step": step,
    "data": data,
    "serve": serve,
    "search": search,
    "compile": compiled,
}


@dataclass
class Watch:
    """How long it has run."""

    begun: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return time.monotonic() - self.begun


def measured(rows: Rows, bench: Bench, groups: list[str], watch: Watch) -> bool:
    """Run the groups, each by itself; return whether all went well."""
    well = True
    for name in groups:
        print(f"{name}: begins after {watch.seconds():.0f} s", flush=True)
        try:
            if bench.left() <= 0:
                raise TimeoutError(f"{name}: no time left")
            GROUPS[name](bench)
        except Exception:
            well = False
            traceback.print_exc()
            rows.add(name, "", "", "", "failed", 1, "1 is yes")
        rows.write()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"{name}: ends after {watch.seconds():.0f} s", flush=True)
    return well


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the table, a CSV file")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --miniature")
    parser.add_argument("--miniature", action="store_true", help="tiny networks and data")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    given = parser.parse_args()
    watch = Watch()
    device = torch.device(given.device)
    prepare_process(1 if given.miniature else min(16, len(os.sched_getaffinity(0))))
    rows = Rows(given.out, device)
    print(f"{rows.name}, PyTorch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cases = MINIATURES if given.miniature else CASES
        bench = Bench(rows, cases, device, Path(folder), lambda: MINUTES - watch.seconds() / 60)
        well = measured(rows, bench, given.groups, watch)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
