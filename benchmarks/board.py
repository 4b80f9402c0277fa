"""What it costs a training that `acll board` watches it.

    make .venv/board/installed
    PYTHONPATH=src:.venv/board python benchmarks/board.py

A process trains a small network, whose log `acll board` reads, on one thread, while TensorBoard
shows it; and again without. They take turns. Rows go to docs/benchmarks/board.csv.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from acll.data.batches import Split
from acll.data.prepared import TaskInfo
from acll.networks.build import build
from acll.networks.spec import BackboneNetwork
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, fit
from acll.training.settings import Training

ROOT = Path(__file__).parents[1]
TURNS = 5
EPOCHS = 20


def main() -> None:
    rows = []
    for turn in range(TURNS):
        for watched in (True, False) if turn % 2 else (False, True):
            rows.append({"turn": turn, "watched": watched, "seconds": seconds(watched)})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(ROOT / "docs/benchmarks/board.csv", index=False)
    medians = table.groupby("watched")["seconds"].median()
    print(f"with it {medians[True] / medians[False]:.3f} times as long")


def seconds(watched: bool) -> float:
    """How long the training takes."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "logs/train/small/learned/seed0/a.log"
        log.parent.mkdir(parents=True)
        board = None
        if watched:
            board = subprocess.Popen(
                [sys.executable, "-c", "from acll.cli.main import main; main()",
                 "board", folder, "--port", "0"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(15)  # until it watches
        context = get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=train, args=(log, sender))
        process.start()
        taken: float = receiver.recv()
        process.join()
        if board is not None:
            board.terminate()
            board.wait()
        return taken


def train(log: Path, sender: Any) -> None:
    """Train, with the log of a step; send the seconds that it took."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 255, (512, 3, 24, 24), np.uint8))
    split = Split(images, torch.from_numpy(generator.integers(0, 10, 512)))
    classes = tuple(f"c{number}" for number in range(10))
    info = TaskInfo("a", "classification", classes, (24, 24), (0.5,) * 3, (0.25,) * 3)
    network = build(BackboneNetwork(backbone="resnet_small"), "classification", 10, 0, False)
    settings = Training(epochs=EPOCHS)
    learner = TaskLearner(
        network, split, split, info, settings.batches("classification"), torch.device("cpu")
    )
    start = time.perf_counter()
    with log.open("w") as file, contextlib.redirect_stdout(file):
        fit(learner, network.state_dict(), FitConfig(settings.for_training(), 0, label="a"))
    sender.send(time.perf_counter() - start)


if __name__ == "__main__":
    main()
