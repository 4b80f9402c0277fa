import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = Path(os.environ.get("ACLL_TEST_DATA", ROOT.parent / "shared" / "data"))

# As in the pipeline: one thread a process, since pytest runs several of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption(
        "--faults", type=int, default=3, help="at how many random moments runs are stopped"
    )


# Files whose tests take minutes go first, so that two workers end at about the same time. With the
# first two, neither worker waits for a run that the other one makes for all.
SLOW = ("test_sharing", "test_networks", "test_pipeline", "test_rerun", "test_documentation",
        "test_faults", "test_wheel", "test_step_server")  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))
    if not REAL_DATA.is_dir():
        for item in items:
            if item.get_closest_marker("realdata"):
                item.add_marker(
                    pytest.mark.skip(
                        reason=f"there is no folder {REAL_DATA}; ACLL_TEST_DATA names another"
                    )
                )


@pytest.fixture(autouse=True, scope="session")
def _no_wait_for_the_disk():
    """Leave out, in the process of the tests, what guards files against power cuts alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_gpus(tmp_path_factory):
    """Let runs find no GPUs: their jobs would wait for those of other runs on this machine."""
    fails = driver(tmp_path_factory.mktemp("driver"), "", 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(fails), prepend=":")
        yield


def driver(folder: Path, says: str, code: int) -> Path:
    """A folder with an `nvidia-smi` that says this, whole lines, and ends with this exit code."""
    tool = folder / "nvidia-smi"
    folder.mkdir(exist_ok=True)
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\nexit {code}\n")
    tool.chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def _signals_as_before():
    """Leave SIGINT as it was: `acll run` takes it over in its process, and processes inherit it."""
    handler, blocked = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.signal(signal.SIGINT, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture
def real_data() -> Path:
    return REAL_DATA


def tiny_task(
    name: str,
    kind: str = "classification",
    size: int = 16,
    classes: int = 3,
    samples: int = 6,
    seed: int = 0,
):
    """(training split, validation split, header) of random images and labels."""
    import torch

    from acll.data.batches import Split
    from acll.data.prepared import TaskInfo

    generator = np.random.default_rng([seed, *name.encode()])
    images = torch.from_numpy(generator.integers(0, 256, (samples, 3, size, size), dtype=np.uint8))
    shape = (samples,) if kind == "classification" else (samples, size, size)
    labels = torch.from_numpy(
        generator.integers(0, classes, shape).astype(np.int64 if len(shape) == 1 else np.uint8)
    )
    names = tuple(f"class_{index}" for index in range(classes))
    header = TaskInfo(name, kind, names, (size, size), (0.5,) * 3, (0.3,) * 3)
    return Split(images, labels), Split(images[:4], labels[:4]), header


def fit_config(epochs: float, learning_rate: float, seed: int, keep_state: bool = True, **settings):
    """One training. settings: of `training` in a configuration."""
    from acll.training.loop import FitConfig
    from acll.training.settings import Training

    changes = {"epochs": epochs, "learning_rate": learning_rate}
    schedule = Training(**settings).for_training().model_copy(update=changes)
    return FitConfig(schedule, seed, keep_state)


def killing(path: Path, key: str, writes: int = 1):
    """A checkpoint of a training that is killed (KeyboardInterrupt) after so many epochs."""
    from acll.training.checkpoint import Checkpoint

    class Killing(Checkpoint):
        def write(self, *given):
            super().write(*given)
            written.append(given)
            if len(written) == writes:
                raise KeyboardInterrupt

    written: list = []
    return Killing(path, key)


def usual_record(info, *rest):
    """What a packed network knows of a task that is scored by the usual metric of its kind."""
    from acll.settings import METRICS
    from acll.steps._setup import task_record

    return task_record(info, METRICS[info.kind][0], *rest)


def batches(kind: str = "classification", **settings):
    """What a task of a kind is learned from. settings: of `training` in a configuration."""
    from acll.training.settings import Training

    return Training(**settings).batches(kind)


def building(spec):
    """What builds networks of a specification, as `learn` takes it."""
    from acll.networks.build import build
    from acll.networks.spec import DecoderNetwork

    def make(kind, classes, seed):
        return build(spec, kind, classes, seed, pretrained=False)

    make.spec = spec.model_dump(mode="json")
    if isinstance(spec, DecoderNetwork):
        make.has_decoder = True
    return make


def learn(
    packed,
    build: Callable,
    task,
    ratio: float = 0.5,
    scope: str = "layer",
    epochs: int = 1,
    width: float | None = None,
    left_out: float = 0.0,
    **settings,
):
    """Train, prune, retrain and commit one more task, as the steps do. build(kind, classes, seed) →
    TaskNetwork. width: of that network, where it is wider than the one before. left_out: share of
    the weights of earlier tasks that it does not read, drawn."""
    import torch

    from acll.networks.channels import ChannelGraph
    from acll.networks.partition import partition
    from acll.packing.ownership import commit, empty, free, starting_state
    from acll.training.learner import TaskLearner
    from acll.training.loop import fit
    from acll.training.release import Pruning

    train, validation, header = task
    network = build(header.kind, len(header.classes), len(packed.tasks) if packed else 0)
    if packed is None:
        whole = build("segmentation" if hasattr(build, "has_decoder") else "classification", 2, 0)
        packed = empty(
            getattr(build, "spec", {}),
            {name: whole.state_dict()[name] for name in partition(whole).shared},
            "test",
            0,
        )
    settings = {
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 0.1,
        "batch_size": 3,
    } | settings
    own = batches(header.kind, **settings)
    learner = TaskLearner(network, train, validation, header, own, torch.device("cpu"))
    masks = free(packed, header.kind)
    start = starting_state(packed, header.kind, network.state_dict())
    if left_out:
        drawn = torch.Generator().manual_seed(len(packed.tasks))
        for name, mask in masks.items():
            unread = ~mask & (torch.rand(mask.shape, generator=drawn) < left_out)
            start[name] = start[name].masked_fill(unread, 0.0)
    dense = fit(learner, start, fit_config(epochs, 0.01, 1, **settings), masks).state
    channels = ChannelGraph(learner.network, learner.some_images()) if scope == "channel" else None
    smaller, keep = Pruning(masks, scope, channels).at_once(dense, ratio)
    after = fit(learner, smaller, fit_config(epochs, 0.01, 2, **settings), keep).state
    record = usual_record(header, 0.5, (), {"ratio": ratio}, width or packed.width)
    return commit(packed, record, after, keep, "chosen" if left_out else "all")


def tiny_packed(
    *names: str, spec=None, kind: str = "classification", left_out: float = 0.0, **task
):
    """The packed network of some tasks; of a small perceptron, or of what `spec` says.

    A name like `roads: segmentation` says the kind of this task. left_out: as of `learn`.
    """
    from acll.networks.build import build as built
    from acll.networks.spec import DecoderNetwork, PerceptronNetwork

    spec = spec or PerceptronNetwork(hidden=[6], image_size=[4, 4], channels=3)

    def build(kind, classes, seed):
        return built(spec, kind, classes, seed, pretrained=False)

    build.spec = spec.model_dump(mode="json")
    if isinstance(spec, DecoderNetwork):
        build.has_decoder = True
    packed = None
    for name in names:
        own, _, own_kind = name.partition(": ")
        learned = tiny_task(own, own_kind or kind, **({"size": 4} | task))
        packed = learn(packed, build, learned, left_out=left_out)
    return packed


def outputs(packed, build: Callable, task):
    """What the network of a task gives for its validation images."""
    import torch

    from acll.data.batches import normalised
    from acll.packing.ownership import task_state_dict

    _, validation, header = task
    network = build(header.kind, len(header.classes), 99)
    network.load_state_dict(task_state_dict(packed, header.name))
    with torch.no_grad():
        return network.eval()(normalised(validation.images, header, torch.device("cpu")))


def kept_counts(free_counts: Mapping, ratio: float) -> dict:
    """How many weights of each tensor a release by scores keeps, of so many free ones."""
    from acll.packing.layers import layer_shares
    from acll.packing.prune import kept_count

    shares = layer_shares(free_counts, 1 - ratio)
    return {name: kept_count(count, 1 - shares[name]) for name, count in free_counts.items()}


def states_equal(left: Mapping, right: Mapping) -> bool:
    """Bit for bit."""
    from acll.packing.ownership import digest

    return digest(left) == digest(right)


@pytest.fixture(autouse=True)
def no_run_is_left_in_the_environment():
    yield
    assert os.environ.pop("ACLL_RUN", None) is None
