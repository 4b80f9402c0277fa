"""How often `predict("auto")` names the right task, and how well probabilities are calibrated.

    make run CONFIG=demo    # and others, as docs/results.md has them
    python benchmarks/recognition.py results/demo results/five_datasets

Networks are those of one method at the ends of the sequences. Each image, as it was prepared, goes
to all tasks of its network. Rules: `chance`; `nearest mean`, the task whose images have the most
similar means of channels; `confidence`, the one whose network is surest; `statistics`, the one
whose images have the most similar means and variances, in pixels and in batch normalisations;
`both`, these two multiplied. The best rule on validation splits is the default. Test splits are
read for the rows that say so, and for nothing else. Calibration errors are of test splits, with
and without the temperature. Rows go to docs/benchmarks/recognition.csv and calibration.csv.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from acll.data import prepared
from acll.data.batches import Split, normalised, split_of, splits_of
from acll.errors import UserError
from acll.evaluation.answers import answers_of
from acll.evaluation.spread import spread
from acll.packing import packed_file
from acll.packing.load import restore_network, task_info_of
from acll.packing.ownership import Packed
from acll.serving.inputs import batch_of
from acll.serving.predictions import TaskInUse
from acll.serving.recognition import evidence, view
from acll.steps._calibration import calibrated
from acll.training.calibration import Calibrated

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/benchmarks"
CPU = torch.device("cpu")
RULES = ("nearest mean", "confidence", "statistics", "both")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--method", default="adaptive")
    parser.add_argument("--images", type=int, default=200, help="of a split of a task, at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prepared.allow_test()
    tasks, errors = [], []
    for results in options.results:
        for path in sorted((results / "networks").glob(f"*-{options.method}-*.safetensors")):
            print(path)
            packed, splits = known(results, path)
            place = {"results": results.name, "network": path.stem, "tasks": len(packed.tasks)}
            tasks += [place | row for row in recognised(packed, splits, options.images)]
            errors += [place | row for row in calibration(packed, splits)]
    pd.DataFrame(tasks).to_csv(OUT / "recognition.csv", index=False)
    pd.DataFrame(errors).to_csv(OUT / "calibration.csv", index=False)


def known(results: Path, path: Path) -> tuple[Packed, dict[str, dict[str, Split]]]:
    """A network with its temperatures, and the validation and test splits of its tasks."""
    packed = packed_file.read_packed(path)
    splits = {}
    for record in packed.tasks:
        if record.rotate or record.permute is not None:
            raise UserError(f"{path}: images of {record.name} are turned or mixed when prepared")
        _, validation, _ = splits_of(results / f"data/{record.name}.train.safetensors")
        tensors, _ = prepared.read_prepared(results / f"data/{record.name}{prepared.TEST}")
        splits[record.name] = {"validation": validation, "test": split_of(tensors, "test")}
    return calibrated(
        packed, {name: own["validation"] for name, own in splits.items()}, CPU
    ), splits


def recognised(
    packed: Packed, splits: dict[str, dict[str, Split]], most: int
) -> Iterator[dict[str, object]]:
    """For each split and rule, how often the right task is named: the mean over tasks."""
    names = [record.name for record in packed.tasks]
    for split in ("validation", "test"):
        images = {name: some(splits[name][split], most) for name in names}
        weights = {rule: {name: [] for name in names} for rule in RULES}
        for name in names:  # one network at a time
            task = in_use(packed, name)
            for own in names:
                for rule, values in weighed(task, images[own]).items():
                    weights[rule][own].append(values)
        count = sum(map(len, images.values()))
        yield {"split": split, "rule": "chance", "images": count, "right": 1 / len(names)}
        for rule, found in weights.items():
            shares = [torch.stack(found[name], dim=1) for name in names]
            shares = [own / own.sum(dim=1, keepdim=True) for own in shares]
            right = [
                (own.argmax(dim=1) == at).double().mean().item() for at, own in enumerate(shares)
            ]
            row = {"split": split, "rule": rule, "images": count, "right": np.mean(right)}
            if rule == "both":
                row["confidence"] = np.mean([own.amax(dim=1).mean().item() for own in shares])
            yield row


def some(split: Split, most: int) -> list[np.ndarray]:
    """Images [H, W, C] that are spread over a split."""
    positions = spread(len(split), most) if len(split) > most else range(len(split))
    return [np.asarray(split.images[at]).transpose(1, 2, 0) for at in positions]


def in_use(packed: Packed, name: str) -> TaskInUse:
    record = packed.record(name)
    network = restore_network(packed, name)[0]
    return TaskInUse(network, task_info_of(record), record.temperature)


def weighed(task: TaskInUse, images: list[np.ndarray]) -> dict[str, Tensor]:
    """How likely a task is by each rule, for each image [N]."""
    found: dict[str, list[Tensor]] = {rule: [] for rule in RULES}
    for start in range(0, len(images), 64):
        batch = batch_of([view(image, task.info) for image in images[start : start + 64]])
        known = evidence(task, batch)
        off = normalised(batch, task.info, CPU).mean(dim=(2, 3)).square().mean(dim=1)
        one = torch.ones_like(known.confidence)
        found["nearest mean"].append(1 / (off + 1e-9))
        found["confidence"].append(known.confidence)
        found["statistics"].append(replace(known, confidence=one).weight())
        found["both"].append(known.weight())
    return {rule: torch.cat(values) for rule, values in found.items()}


def calibration(packed: Packed, splits: dict[str, dict[str, Split]]) -> Iterator[dict[str, object]]:
    """For each task of classification, its calibration error on the test split."""
    for record in packed.tasks:
        if record.kind != "classification":
            continue
        network, _ = restore_network(packed, record.name)
        info, test = task_info_of(record), splits[record.name]["test"]
        errors = {
            words: answers_of(Calibrated(network, own), test, info, CPU).measures[
                "calibration_error"
            ]
            for words, own in (("before", 1.0), ("after", record.temperature))
        }
        yield {"task": record.name, "temperature": record.temperature, "images": len(test)} | errors


if __name__ == "__main__":
    main()
