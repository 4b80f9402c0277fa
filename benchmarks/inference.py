"""Packed networks in use: how long they take to load, to switch and to run, and how large they are.

    make run CONFIG=inference DATA=../shared/data      # about half an hour on two cores python
    benchmarks/inference.py results/inference

Networks are those at the ends of the sequences, as they are in their files. Variants: `dense`
(nothing released), `masked` (as loaded), `compact` (normalisations folded, channels that make no
difference removed), `onnx` and `onnx_int8` (by onnxruntime, of the compact one). One thread, but
for loading, which has as many as there are cores (and one, for comparison), and a new process for
each turn: memory that a process has used before is quicker to get again. Times are medians of runs
that take turns. Rows go to docs/benchmarks/inference.csv.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import acll
from acll.data.batches import splits_of
from acll.networks.build import build
from acll.packing import accounting, packed_file
from acll.packing.load import specification
from acll.serving.compact import compacted
from acll.serving.export import OnnxSession, export_task

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/benchmarks/inference.csv"
ENDS = {"resnet18": "mnist/cifar10", "unet": "people/membrane/camvid", "vgg16_bn": "digits"}
METHODS = ("weights", "channels")
TURNS = 15
BATCH = 32


Function = Callable[[], object]


def seconds(function: Function) -> float:
    """How long it takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def seconds_apart(function: Function, threads: int) -> float:
    """How long it takes in a new process, which may use so many threads."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        torch.set_num_threads(threads)
        sender.send(seconds(function))

    process = context.Process(target=work)
    process.start()
    sender.close()  # so that one that fails is noticed
    taken: float = receiver.recv()
    process.join()
    return taken


def medians(
    variants: dict[str, Function], clock: Callable[[Function], float] = seconds
) -> dict[str, float]:
    """The median seconds of each, run in turns, after one that is not counted."""
    turns = [
        {name: clock(function) for name, function in variants.items()} for _ in range(TURNS + 1)
    ]
    return {name: float(np.median([turn[name] for turn in turns[1:]])) for name in variants}


class Rows:
    """The table as it grows."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str, float]] = []

    def add(self, network: str, task: str, variant: str, quantity: str, value: float) -> None:
        self.rows.append((network, task, variant, quantity, float(f"{value:.4g}")))
        print(f"{network:20} {task:10} {variant:12} {quantity:22} {value:12.4g}", flush=True)

    def write(self) -> None:
        """What there is so far, so that nothing is lost where it is stopped."""
        pd.DataFrame(self.rows, columns=["network", "task", "variant", "quantity", "value"]).to_csv(
            OUT, index=False
        )


def loading(rows: Rows, name: str, path: Path, folder: Path) -> None:
    """Load time against that of a plain state dict, and switching."""
    packed = acll.load(path)
    for task in packed.tasks:
        plain = folder / "state.pt"
        torch.save(packed.network(task.name).state_dict(), plain)
        read = partial(lambda name: packed_file.open_packed(path).state(name), task.name)
        for threads, unit in ((len(os.sched_getaffinity(0)), ""), (1, "_one_thread")):
            clock = partial(seconds_apart, threads=threads)
            times = medians({"state_dict": partial(torch.load, plain), "packed": read}, clock)
            for variant, taken in times.items():
                rows.add(name, task.name, variant, f"load_ms{unit}", 1e3 * taken)
            rows.add(
                name,
                task.name,
                "packed",
                f"load_ratio{unit}",
                times["packed"] / times["state_dict"],
            )
    if len(packed.tasks) > 1:
        first, last = packed.tasks[0].name, packed.tasks[-1].name
        live = packed.network(first)
        times = medians(
            {last: lambda: packed.switch(live, last), first: lambda: packed.switch(live, first)}
        )
        for which, taken in times.items():
            rows.add(name, which, "packed", "switch_ms", 1e3 * taken)


@torch.no_grad()
def running(rows: Rows, name: str, path: Path, folder: Path, data: Path) -> None:
    """Latency and throughput of the task that was learned last, or alone, and of the first."""
    packed, opened = acll.load(path), packed_file.open_packed(path)
    for task in dict.fromkeys((packed.tasks[0].name, packed.tasks[-1].name)):
        record = opened.record(task)
        validation = splits_of(data / f"{task}.train.safetensors")[1]
        images = torch.rand(
            BATCH, len(record.mean), *record.image_size, generator=torch.Generator().manual_seed(0)
        )
        masked = packed.network(task)
        dense = build(
            specification(opened.without_weights()), record.kind, len(record.classes), 0, False
        ).eval()
        small = compacted(masked, images[:4])
        onnx = export_task(opened, task, folder / "a.onnx", "float32", validation)
        int8 = export_task(opened, task, folder / "b.onnx", "int8", validation)
        half = export_task(opened, task, folder / "c.onnx", "float16", validation)
        rows.add(name, task, "compact", "channels_left", small.channels[1] / small.channels[0])
        rows.add(name, task, "compact", "weights_left", small.weights[1] / small.weights[0])
        rows.add(
            name,
            task,
            "compact",
            "difference",
            float((small.network(images) - masked(images)).abs().max()),
        )
        for variant, exported in (("onnx", onnx), ("onnx_half", half), ("onnx_int8", int8)):
            rows.add(name, task, variant, "difference", exported.difference)
            rows.add(name, task, variant, "validation_score", exported.scores[1])
            rows.add(name, task, variant, "bytes", exported.bytes)
        rows.add(name, task, "masked", "validation_score", onnx.scores[0])
        alone = export_task(opened, task, folder / "d.safetensors", "float32", None)
        rows.add(name, task, "packed_alone", "bytes", alone.bytes)
        modules = {
            "dense": dense,
            "masked": masked,
            "compact": small.network,
            "onnx": OnnxSession(folder / "a.onnx"),
            "onnx_int8": OnnxSession(folder / "b.onnx"),
        }
        for count, quantity in ((1, "latency_ms"), (BATCH, "images_per_second")):
            batch = images[:count]
            times = medians({which: partial(module, batch) for which, module in modules.items()})
            for variant, taken in times.items():
                rows.add(
                    name, task, variant, quantity, 1e3 * taken if count == 1 else count / taken
                )


def sizes(rows: Rows, name: str, path: Path) -> None:
    """Bytes of the file for the first tasks, and against separate networks."""
    header = packed_file.open_packed(path).header
    together = accounting.bytes_of_first(header)
    separate = np.cumsum([accounting.bytes_alone(header, record.name) for record in header.tasks])
    for record, own, others in zip(header.tasks, together, separate):
        rows.add(name, record.name, "packed", "bytes_so_far", own)
        rows.add(name, record.name, "packed", "size_ratio", own / others)
    rows.add(name, "all", "packed", "bytes_on_disk", path.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results of config/inference.yaml")
    results = parser.parse_args().results
    torch.set_num_threads(1)
    rows = Rows()
    with tempfile.TemporaryDirectory() as folder:
        for network, end in ENDS.items():
            for method in METHODS:
                path = results / f"nodes/{network}/{method}/seed0/{end}/network.safetensors"
                name = f"{network} {method}"
                sizes(rows, name, path)
                loading(rows, name, path, Path(folder))
                running(rows, name, path, Path(folder), results / "data")
                rows.write()


if __name__ == "__main__":
    main()
