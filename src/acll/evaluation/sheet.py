"""A contact sheet of a prepared task: training samples, and how many samples have each class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from acll.data import prepared
from acll.data.faults import CALLED
from acll.data.prepared import TaskInfo
from acll.data.storage import SPLITS
from acll.evaluation.pictures import COLOURS, class_colours, overlaid, visible
from acll.evaluation.spread import spread
from acll.evaluation.words import shortened

COLUMNS, ROWS = 8, 6
_NAMED = 20  # classes that have a bar and a name of their own


def sheet(train: Path, summary: Mapping[str, Any]) -> Figure:
    """Return the sheet of a task. train: its prepared training file. summary: of its preparation.

    The test split is counted, never shown.
    """
    positions = _positions(train, summary)
    images, labels, header = prepared.some_samples(train, "train", positions)
    figure: Figure = plt.figure(figsize=(13, 6.2), layout="constrained")
    samples, bars = figure.subfigures(1, 2, width_ratios=[2.2, 1], squeeze=False)[0]
    panels = samples.subplots(ROWS, COLUMNS, squeeze=False).flatten()
    colours = class_colours(len(header.classes))
    for panel in panels:
        panel.axis("off")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_visible(False)  # else its ticks, which nobody sees, take as long as all else
    if header.kind == "segmentation":
        for index, (image, mask) in enumerate(zip(images, labels)):
            panels[2 * index].imshow(visible(image))
            panels[2 * index + 1].imshow(overlaid(visible(image), mask, colours))
    else:
        for panel, image, label in zip(panels, images, labels):
            panel.imshow(visible(image))
            panel.set_title(shortened(header.classes[int(label)], 14), fontsize=7, pad=2)
    samples.suptitle(_title(header, summary), fontsize=10)
    _counts(bars.subplots(), header, summary, colours)
    return figure


def _title(header: TaskInfo, summary: Mapping[str, Any]) -> str:
    height, width = header.image_size
    of_what = " tiles" if summary["tile_overlap"] is not None else ""
    sizes = ", ".join(f"{summary['samples'][split]:,} {split}{of_what}" for split in SPLITS)
    bands = summary["channels"]
    lines = [
        f"{header.name} ({summary['source']}, {header.kind}): {sizes}",
        f"{height} x {width} pixels, {bands} channel{'s' if bands > 1 else ''} of "
        f"{summary['pixel']}"
        f"{' (the first three are shown)' if bands > 3 else ''}, "
        f"{len(header.classes)} classes",
    ]
    for what in ("left_out", "warnings"):
        if summary[what]:
            lines.append(
                f"{what.replace('_', ' ')}: "
                + "; ".join(f"{CALLED[kind]}: {n:,}" for kind, n in summary[what].items())
            )
    return "\n".join(lines)


def _positions(train: Path, summary: Mapping[str, Any]) -> list[int]:
    """Return positions of samples to show, spread over the split.

    They are of as many classes as there is room for.
    """
    count = summary["samples"]["train"]
    if summary["kind"] == "segmentation":
        return spread(count, ROWS * COLUMNS // 2)
    labels = prepared.labels(train, "train")
    chosen = spread(len(summary["classes"]), ROWS * COLUMNS)
    each = max(1, ROWS * COLUMNS // len(chosen))
    found = [np.flatnonzero(labels == label) for label in chosen]
    return [int(where[index]) for where in found for index in spread(len(where), each)]


def _counts(
    panel: Axes, header: TaskInfo, summary: Mapping[str, Any], colours: NDArray[Any]
) -> None:
    """Draw how many samples of each split have each class."""
    counts: dict[str, Sequence[int]] = {split: summary["with_class"][split] for split in SPLITS}
    rows = np.arange(len(header.classes))
    if len(rows) > _NAMED:
        order = np.argsort(counts["train"])[::-1]
        for colour, (split, values) in zip(COLOURS, counts.items()):
            panel.plot(np.array(values)[order], color=colour, label=split)
        panel.set_xlabel("class, by training samples")
        panel.set_ylabel("samples with the class")
        panel.set_ylim(bottom=0)
    else:
        # in a sheet of masks the bars have the colours of the masks, where class 0 has none
        of_masks = ["#bbbbbb", *map(tuple, colours[1:])]
        painted = of_masks if header.kind == "segmentation" else COLOURS[0]
        for offset, (split, values), alpha in zip((-0.27, 0, 0.27), counts.items(), (1, 0.6, 0.3)):
            panel.barh(rows + offset, values, 0.25, color=painted, alpha=alpha)
            panel.barh(0, 0, color="#444444", alpha=alpha, label=split)  # for the legend alone
        panel.set_yticks(rows, [shortened(name, 22) for name in header.classes])
        panel.invert_yaxis()
        panel.set_xlabel("samples with the class")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    panel.legend(frameon=False, fontsize=8, ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
