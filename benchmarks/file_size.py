"""Bytes of packed files by part, and how long they take to load.

    python benchmarks/file_size.py          # a few minutes; needs no images

ResNets with random weights, of which random owners own equal shares: no training is needed to know
the bytes. Networks trained by a run may be named too: `python benchmarks/file_size.py
results/demo`. Loading is the state of the last task, against `torch.load` of a plain state dict of
its network, as in `inference.py`. `bits_per_weight` counts all shared weights, owned or not;
`of_networks` is against the bytes of one plain float32 network. Rows go to
docs/benchmarks/file_size.csv.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from inference import medians, seconds_apart

from acll.networks.build import build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork
from acll.packing import packed_file
from acll.packing.ownership import Packed, TaskRecord

OUT = Path(__file__).parents[1] / "docs/benchmarks/file_size.csv"
# network, number of tasks, share of the weights that they own together
CASES = {
    "resnet18, five tasks own 4%": ("resnet18", 5, 0.04),
    "resnet18, five tasks own 60%": ("resnet18", 5, 0.6),
    "resnet18, ten tasks own all": ("resnet18", 10, 1.0),
    "resnet50, five tasks own 4%": ("resnet50", 5, 0.04),
    "resnet50, five tasks own 60%": ("resnet50", 5, 0.6),
}
CLASSES = tuple(map(str, range(10)))


def synthetic(backbone: str, tasks: int, share: float) -> Packed:
    """A network of which tasks own this share in equal parts, in random places."""
    spec = BackboneNetwork(backbone=backbone)
    network = build(spec, "classification", len(CLASSES), 0, pretrained=False)
    state, parts = network.state_dict(), partition(network)
    generator = torch.Generator().manual_seed(0)
    shared, owners = {}, {}
    for name in parts.shared:
        shape = state[name].shape
        owner = torch.randint(1, tasks + 1, shape, generator=generator, dtype=torch.uint8)
        owner[torch.rand(shape, generator=generator) >= share] = 0
        owners[name], shared[name] = owner, torch.where(owner > 0, state[name], 0.0)
    records = tuple(record(f"task_{position}") for position in range(1, tasks + 1))
    private = {one.name: {name: state[name] for name in parts.private} for one in records}
    return Packed(spec.model_dump(mode="json"), shared, owners, private, records, "adaptive")


def record(name: str) -> TaskRecord:
    """What a network knows of a task with ten classes."""
    return TaskRecord(
        name=name,
        kind="classification",
        classes=CLASSES,
        image_size=(32, 32),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        metric="accuracy",
        validation_score=0.9,
        digest="0" * 64,
    )


def rows_of(case: str, path: Path) -> list[dict]:
    """A row for each part of a file."""
    header = packed_file.open_packed(path).header
    weights = sum(layer.count for layer in header.layers)
    owned = sum(sum(layer.owned) for layer in header.layers) / weights
    parts = packed_file.parts_of(header)
    private = sum(parts.private.values())
    one = 4 * weights + private / len(header.tasks)
    sizes = {
        "weights": parts.weights,
        "owners": parts.owners,
        "private": private,
        "header": parts.header,
        "all": path.stat().st_size,
    }
    return [
        {
            "case": case,
            "tasks": len(header.tasks),
            "owned_share": round(owned, 4),
            "part": part,
            "bytes": size,
            "bits_per_weight": round(8 * size / weights, 4),
            "of_networks": round(size / one, 4),
        }
        for part, size in sizes.items()
    ]


def loading(path: Path, folder: Path) -> dict[str, float]:
    """Median milliseconds to load the last task, and a plain state dict of its network."""
    task = packed_file.open_packed(path).header.tasks[-1].name
    torch.save(packed_file.open_packed(path).state(task), folder / "state.pt")
    variants = {
        "state_dict": partial(torch.load, folder / "state.pt"),
        "packed": lambda: packed_file.open_packed(path).state(task),
    }
    clock = partial(seconds_apart, threads=2)
    return {name: round(1e3 * taken, 1) for name, taken in medians(variants, clock).items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="*", help="results of runs")
    torch.set_num_threads(1)  # threads of this process would be lost in those that load
    found = []
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, (case, made) in enumerate(CASES.items()):
            files[case] = Path(folder) / f"{number}.safetensors"
            packed_file.write_packed(files[case], synthetic(*made))
        for results in parser.parse_args().results:
            # of each sequence the file with all its tasks
            for path in sorted(results.glob("nodes/**/network.safetensors")):
                if not list(path.parent.glob("*/network.safetensors")):
                    files[str(path.parent.relative_to(results / "nodes"))] = path
        for case, path in files.items():
            rows = rows_of(case, path)
            for name, taken in loading(path, Path(folder)).items():
                rows[-1][f"{name}_ms"] = taken
            print(pd.DataFrame(rows).to_string(), flush=True)
            found += rows
    pd.DataFrame(found).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
