"""How fast training gets its batches, and how fast and in how much memory data are prepared.

    python benchmarks/data.py loading ../shared/data      one epoch of batches of cifar10 and camvid
    python benchmarks/data.py augmenting                  batches in memory, by each library
    python benchmarks/data.py preparing                   a folder ten times the memory that is
                                                          allowed
    python benchmarks/data.py series ../shared/data       ten permutations of one source

Loading is compared with torchvision's ImageFolder and a DataLoader of two workers. Both read the
same images and make the same augmentation (mirrored and shifted by up to an eighth, or another) and
normalisation. Augmenting is compared with transforms of torchvision that are called for each image,
and with those of kornia, where it is installed, which take batches. Repetitions take turns. Rows go
to data.csv, augmentation.csv, preparation.csv and series.csv in docs/benchmarks.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from acll.config.checks import parse
from acll.data import prepared
from acll.data.preparation import prepare
from acll.data.sources.image_folder import ImageFolder
from acll.data.sources.mask_folder import MaskFolder
from acll.plan import plan

ROOT = Path(__file__).parents[1]
REPETITIONS = 5
BATCH = 64
WORKERS = 2  # of a DataLoader
CLASSES = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
]
TASKS = {
    "cifar10": ImageFolder(source="image_folder", path="cifar10", image_size=32),
    "camvid": MaskFolder(
        source="mask_folder", path="camvid", image_size=[96, 128], classes=CLASSES
    ),
}


USUAL = "flip, shift"
SETTINGS = (
    USUAL,
    "crop",
    "affine",
    "rotation",
    "colour",
    "blur",
    "erasing",
    "trivialaugment",
    "randaugment",
    "cutmix",
)
# what is for classification alone, and what torchvision has for images without masks alone
WITHOUT_MASKS = ("cutmix", "trivialaugment", "randaugment")


def loading(root: Path, repetitions: int) -> None:
    """Images a second through one epoch of the training split, ours and torchvision's in turn."""
    rows = []
    for name, task in TASKS.items():
        with tempfile.TemporaryDirectory() as scratch:
            batches = prepared_batches(task, root, Path(scratch))
            for setting in SETTINGS:
                if setting in WITHOUT_MASKS and isinstance(task, MaskFolder):
                    continue
                loaders = {
                    "acll": partial(batches, setting.split(", ")),
                    "imagefolder_dataloader_2": torchvisions(task, root, setting),
                }
                for loader in loaders.values():
                    images_per_second(loader)  # files into memory, workers started
                for repetition in range(1, repetitions + 1):
                    for loader_name, loader in loaders.items():
                        rate = round(images_per_second(loader), 1)
                        rows.append((name, setting, loader_name, repetition, rate))
                        print(*rows[-1], flush=True)
    table = pd.DataFrame(
        rows, columns=["dataset", "augmentation", "loader", "repetition", "images_per_second"]
    )
    table.to_csv(ROOT / "docs/benchmarks/data.csv", index=False)
    groups = table.groupby(["dataset", "augmentation", "loader"], sort=False)
    medians = groups["images_per_second"].median().unstack()
    medians["ratio"] = (medians["acll"] / medians["imagefolder_dataloader_2"]).round(1)
    print(medians.to_string())


def images_per_second(loader: Callable[[], Iterable[Any]]) -> float:
    """Images for each second of processor time, so that other programs of the machine count little:
    of this process, or of its workers, who share theirs, where they take longer.
    """
    own, workers, count = time.process_time(), workers_seconds(), 0
    for images, _ in loader():
        count += len(images)
    own, workers = time.process_time() - own, workers_seconds() - workers
    return count / max(own, workers / WORKERS)


def workers_seconds() -> float:
    """Processor time of the children of this process, all together."""
    times = [process.cpu_times() for process in psutil.Process().children()]
    return sum(one.user + one.system for one in times)


def prepared_batches(
    task: ImageFolder | MaskFolder, root: Path, scratch: Path
) -> Callable[[list[Any]], Iterable[Any]]:
    """Return what gives batches from a prepared file, in one process with one thread, as a step
    has."""
    from acll.data.batches import split_of, training_batches
    from acll.training.process import prepare_process

    device = prepare_process(1)
    train = scratch / "x.train.safetensors"
    prepare("x", task, root, train, scratch / "x.test.safetensors", scratch / "faults.csv", 2)
    tensors, header = prepared.read_prepared(train)
    split = split_of(tensors, "train")
    return lambda augmentation: training_batches(split, header, BATCH, augmentation, 0, 0, device)


def transforms_of(setting: str, size: tuple[int, int]) -> list[Any]:
    """Return the transforms of torchvision that do what an augmentation of ours does."""
    from torchvision.transforms import v2

    height, width = size
    bilinear = v2.InterpolationMode.BILINEAR
    return {
        USUAL: lambda: [
            v2.RandomHorizontalFlip(),
            v2.Pad([width // 8, height // 8], padding_mode="reflect"),
            v2.RandomCrop([height, width]),
        ],
        "crop": lambda: [v2.RandomResizedCrop([height, width], scale=(0.25, 1))],
        "affine": lambda: [v2.RandomAffine(10, (0.1, 0.1), (0.8, 1.25), 10, bilinear)],
        "rotation": lambda: [v2.RandomRotation(15, bilinear)],
        "colour": lambda: [v2.ColorJitter(0.4, 0.4, 0.2, 0.1)],
        "blur": lambda: [v2.RandomApply([v2.GaussianBlur(5)])],
        "erasing": lambda: [v2.RandomErasing()],
        "trivialaugment": lambda: [v2.TrivialAugmentWide(interpolation=bilinear)],
        "randaugment": lambda: [v2.RandAugment(interpolation=bilinear)],
        "cutmix": lambda: [],  # of whole batches
    }[setting]()


def torchvisions(
    task: ImageFolder | MaskFolder, root: Path, setting: str
) -> Callable[[], Iterable[Any]]:
    """Batches of the same images from ImageFolder and a DataLoader, whose two workers stay from
    epoch to epoch."""
    import torch
    from torch.utils.data import DataLoader, Subset, default_collate
    from torchvision import datasets, tv_tensors
    from torchvision.transforms import v2

    height, width = task.image_size
    change = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize([height, width], antialias=True),
            *transforms_of(setting, task.image_size),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )

    class WithMasks(datasets.ImageFolder):
        """Images of `images`, each with its mask of `masks`."""

        def __getitem__(self, index: int) -> Any:
            path = Path(self.samples[index][0])
            mask = Image.open(path.parent.parent / "masks" / f"{path.stem}.png")
            image, target = change(self.loader(str(path)), tv_tensors.Mask(np.array(mask)))
            return image, target.long()

    folder = root / task.path / "train"
    if isinstance(task, MaskFolder):
        dataset = WithMasks(folder, is_valid_file=lambda path: "/images/" in path, allow_empty=True)
    else:
        dataset = datasets.ImageFolder(folder, change)
    # images a second do not depend on their number
    dataset = Subset(dataset, range(0, len(dataset), max(1, len(dataset) // 350)))
    mix = v2.CutMix(num_classes=10)
    loader = DataLoader(
        dataset,
        BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        collate_fn=(lambda some: mix(*default_collate(some))) if setting == "cutmix" else None,
    )
    return lambda: loader


# --------------------------------------------------------------------------------------------------


def augmenting(repetitions: int) -> None:
    """Images a second of batches in memory, one thread, ours and each library's in
    turn."""
    import torch

    from acll.training.process import prepare_process

    prepare_process(1)
    rows = []
    for size in ((32, 32), (96, 128)):
        images = torch.rand(BATCH, 3, *size)
        for setting in SETTINGS:
            if setting in (USUAL, "cutmix"):
                continue  # of pixels of any type; of whole batches in each library
            ways = libraries(setting, images)
            for repetition in range(repetitions + 1):
                for library, make in ways.items():
                    begin = time.process_time()  # other programs count little
                    make()
                    rate = BATCH / (time.process_time() - begin)
                    if repetition:  # the first one warms up
                        sides = f"{size[0]}x{size[1]}"
                        rows.append((sides, setting, library, repetition, round(rate, 1)))
    table = pd.DataFrame(
        rows, columns=["size", "augmentation", "library", "repetition", "images_per_second"]
    )
    table.to_csv(ROOT / "docs/benchmarks/augmentation.csv", index=False)
    groups = table.groupby(["size", "augmentation", "library"], sort=False)
    print(groups["images_per_second"].median().unstack().round(0).to_string())


def libraries(setting: str, images: Any) -> dict[str, Callable[[], Any]]:
    """Return what augments images [B, C, H, W], by library."""
    import torch

    from acll.data.augmentation import augmented
    from acll.data.prepared import TaskInfo

    size = tuple(images.shape[2:])
    labels = torch.zeros(len(images), dtype=torch.int64)
    info = TaskInfo("x", "classification", ("a", "b"), size, (0.5,) * 3, (0.25,) * 3)
    (single,), batched = transforms_of(setting, size), kornias(setting, size)

    def copied(some: Any, floats: Any) -> Any:
        return floats.copy_(some)

    found = {
        "acll": lambda: augmented(
            images, labels, [setting], info, torch.Generator().manual_seed(0), copied
        ),
        "torchvision": lambda: torch.stack([single(image) for image in images]),
    }
    return found if batched is None else found | {"kornia": lambda: batched(images)}


def kornias(setting: str, size: tuple[int, int]) -> Any:
    """Return what does in kornia what an augmentation of ours does; None where nothing does.

    None, too, where kornia is not installed. Its TrivialAugment and RandAugment take one operation
    for a batch.
    """
    try:
        from kornia import augmentation
    except ImportError:
        return None
    return {
        "crop": lambda: augmentation.RandomResizedCrop(size, scale=(0.25, 1)),
        "affine": lambda: augmentation.RandomAffine(10, (0.1, 0.1), (0.8, 1.25), 10, p=1),
        "rotation": lambda: augmentation.RandomRotation(15, p=1),
        "colour": lambda: augmentation.ColorJitter(0.4, 0.4, 0.2, 0.1, p=1),
        "blur": lambda: augmentation.RandomGaussianBlur((5, 5), (0.1, 2)),
        "erasing": lambda: augmentation.RandomErasing(),
    }.get(setting, lambda: None)()


# --------------------------------------------------------------------------------------------------


def preparing(megabytes: int, processes: int) -> None:
    """Prepare a folder of ten times `megabytes`, in that much memory for all processes together."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        images = large_folder(root / "large", 10 * megabytes * 2**20)
        size = sum(path.stat().st_size for path in images)
        task = {"source": "image_folder", "path": "large", "image_size": 224}
        command = [sys.executable, "-m", "acll.steps.prepare", "--processes", str(processes)]
        for name in ("train.safetensors", "test.safetensors", "json", "csv"):
            flag = {"json": "--summary", "csv": "--report"}.get(name, f"--{name.split('.')[0]}")
            command += [flag, str(root / f"out/large.{name}")]
        params = root / "params.json"  # a step gets its parameters by standard input
        content = {"params": {"name": "large", "task": task}}
        params.write_text(json.dumps(content), encoding="utf-8")
        # private memory of each process; the kernel refuses more
        limit = megabytes * 2**20 // (processes + 1)
        begin = time.perf_counter()
        with params.open(encoding="utf-8") as given:
            step = subprocess.Popen(
                command,
                stdin=given,
                env=os.environ | {"ACLL_DATA_ROOT": str(root), "OPENBLAS_NUM_THREADS": "1"},
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
            )
            peak = peak_memory(step)
        seconds = time.perf_counter() - begin
        if step.returncode != 0:
            sys.exit(step.returncode)
    row = {
        "images": len(images),
        "folder_mb": size // 2**20,
        "processes": processes,
        "limit_mb": megabytes,
        "peak_mb": peak // 2**20,
        "seconds": round(seconds, 1),
        "images_per_second": round(len(images) / seconds, 1),
        "mb_per_second": round(size / 2**20 / seconds, 1),
    }
    table = pd.DataFrame([row])
    table.to_csv(ROOT / "docs/benchmarks/preparation.csv", index=False)
    print(table.to_string(index=False))


def series(root: Path, count: int, processes: int) -> None:
    """Prepare so many permutations of all of MNIST: the source once, then each of them from it."""
    task = {"source": "image_folder", "path": "sets/mnist70k.zip", "image_size": 28}
    content = {
        "name": "series",
        "tasks": {"mnist": task},
        "networks": {"mlp": {"hidden": [10], "image_size": 28}},
        "sequences": {"one": {"network": "mlp", "tasks": {"of": "mnist", "permuted": count}}},
        "methods": {"half": {"ratio": 0.5}},
    }
    seconds = {"prepare": 0.0, "vary": 0.0}
    with tempfile.TemporaryDirectory() as scratch:
        for job in plan(parse(content)):
            if job.rule not in seconds:
                continue
            command = [sys.executable, "-m", f"acll.steps.{job.rule}"]
            for name, paths in (job.inputs | job.outputs).items():
                command += [f"--{name.replace('_', '-')}", *paths]
            if job.rule == "prepare":
                command += ["--report", "faults.csv", "--processes", str(processes)]
            begin = time.perf_counter()
            subprocess.run(
                command,
                input=job.text,
                text=True,
                cwd=scratch,
                env=os.environ | {"ACLL_DATA_ROOT": str(root.resolve())},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            seconds[job.rule] += time.perf_counter() - begin
    row = {
        "tasks": count,
        "processes": processes,
        "source_seconds": round(seconds["prepare"], 1),
        "variants_seconds": round(seconds["vary"], 1),
        "ratio": round(sum(seconds.values()) / seconds["prepare"], 2),
    }
    table = pd.DataFrame([row])
    table.to_csv(ROOT / "docs/benchmarks/series.csv", index=False)
    print(table.to_string(index=False))


def large_folder(folder: Path, size: int) -> list[Path]:
    """Two classes of images of 12 megapixels, uncompressed, of together at least `size` bytes."""
    generator = np.random.default_rng(0)
    paths: list[Path] = []
    while len(paths) * 36_000_054 < size:
        path = folder / "train" / ("even", "odd")[len(paths) % 2] / f"{len(paths):04d}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((4000, 3000)).save(path)
        paths.append(path)
    return paths


def peak_memory(process: subprocess.Popen) -> int:
    """The most bytes that a process and its children have together until it ends; shared pages
    count once."""
    peak, own = 0, psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [own, *own.children(recursive=True)]:
                total += one.memory_full_info().pss
        peak = max(peak, total)
        time.sleep(0.05)
    return peak


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    of_loading = commands.add_parser("loading")
    of_loading.add_argument("root", type=Path)
    of_augmenting = commands.add_parser("augmenting")
    for one in (of_loading, of_augmenting):
        one.add_argument("--repetitions", type=int, default=REPETITIONS)
    of_series = commands.add_parser("series")
    of_series.add_argument("root", type=Path)
    of_series.add_argument("--tasks", type=int, default=10)
    of_series.add_argument("--processes", type=int, default=2)
    own = commands.add_parser("preparing")
    own.add_argument("--megabytes", type=int, default=660)
    own.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(sys.argv[1:])
    (ROOT / "docs/benchmarks").mkdir(parents=True, exist_ok=True)
    if given.command == "loading":
        loading(given.root, given.repetitions)
    elif given.command == "augmenting":
        augmenting(given.repetitions)
    elif given.command == "series":
        series(given.root, given.tasks, given.processes)
    else:
        preparing(given.megabytes, given.processes)
