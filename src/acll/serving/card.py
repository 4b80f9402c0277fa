"""A model card: what a packed file knows of its network, in Markdown, and nothing else.

Headings and metadata are those of Hugging Face (Mitchell et al., Model Cards for Model Reporting,
2019; `modelcard_template.md` of huggingface_hub). What the file does not know is left for a person
to fill in. Text that comes from the file stands in spans of code alone, where nothing of it is
taken for Markdown or HTML.
"""

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

import yaml
from tabulate import tabulate

from acll.errors import harmless, quoted
from acll.evaluation.words import METRIC_WORDS, grown_words, listed
from acll.libraries import OF_NETWORKS
from acll.networks.spec import (
    OF_ONE_WIDTH,
    PLUGIN_FILE,
    BackboneNetwork,
    Network,
    PerceptronNetwork,
    PluginNetwork,
    width_of,
)
from acll.packing.accounting import bytes_alone, weights_owned, weights_read
from acll.packing.load import naming, specification
from acll.packing.ownership import TaskRecord, grew
from acll.packing.packed_file import PackedFile, parts_of
from acll.settings import Kind

_NEEDED = "[More Information Needed]"  # as Hugging Face says it
_TAGS: dict[Kind, str] = {
    "classification": "image-classification",
    "segmentation": "image-segmentation",
}
_METRICS = {
    "accuracy": "Accuracy is the share of the images whose class is right.",
    "balanced_accuracy": "Balanced accuracy is the share of the images of a class that are right, "
    "averaged over the classes.",
    "macro_f1": "Macro F1 is, of each class, the harmonic mean of precision and recall, averaged "
    "over the classes.",
    "mean_iou": "Mean IoU is, of each class, the pixels that are rightly said to be of it, divided "
    "by those that are of it or said to be, averaged over the classes.",
    "mean_dice": "Mean Dice is, of each class, twice the pixels that are rightly said to be of it, "
    "divided by those that are of it and those that are said to be, averaged over the classes.",
    "pixel_accuracy": "Pixel accuracy is the share of the pixels whose class is right.",
    "boundary_f1": "Boundary F1 is, of each class, the harmonic mean of the shares of the pixels "
    "on its predicted and on its true boundary that lie near the other, averaged over the classes "
    "(Csurka et al. 2013).",
}


def card_of(opened: PackedFile) -> str:
    """Return the model card of a packed network. Only the header of its file is read.

    Raises PackingError where it does not say what the network is built from.
    """
    with naming(opened):
        spec = specification(opened.without_weights())
    sections = (
        _metadata(opened.header.tasks),
        f"# Model Card for {code_span(opened.tensor_file.path.name)}",
        _summary(opened.header.tasks),
        _details(opened, spec),
        _uses(opened.header.tasks),
        _limitations(),
        _start(opened, isinstance(spec, PluginNetwork)),
        _training(opened),
        _evaluation(opened.header.tasks),
        _technical(opened, spec),
        f"## Model Card Contact\n\n{_NEEDED}",
    )
    return "\n\n".join(sections) + "\n"


def code_span(text: str) -> str:
    """Return text as a span of code, in which Markdown shows it as it is, in one line.

    A span ends with as many backticks as it begins with, and of one that begins and ends with a
    space, these two are cut off (CommonMark 0.31, 6.1).
    """
    shown = harmless(text) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    ends = {shown[0], shown[-1]}
    padding = " " if "`" in ends or (ends == {" "} and shown.strip(" ")) else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def _metadata(tasks: Sequence[TaskRecord]) -> str:
    """Return the front matter. It has no text from the file."""
    kinds = sorted({_TAGS[record.kind] for record in tasks})
    content: dict[str, Any] = {"library_name": "acll"}
    if len(kinds) == 1:
        content["pipeline_tag"] = kinds[0]
    content["tags"] = ["continual-learning", "multi-task-learning", *kinds]
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table. Of texts from the file it may have names of tasks, which have no bars."""
    table: str = tabulate(rows, heads, tablefmt="github", disable_numparse=True)
    return table


def _names(tasks: Sequence[TaskRecord]) -> str:
    return listed([code_span(record.name) for record in tasks])


def _summary(tasks: Sequence[TaskRecord]) -> str:
    count = "one task" if len(tasks) == 1 else f"{len(tasks)} tasks"
    text = f"One network with {count}, in the order of learning: {_names(tasks)}."
    moving = [record for record in tasks if not record.frozen]
    if moving:
        text += (
            f" Its method does not promise that {_names(moving)} stayed as learned: training "
            "that came later may have changed the weights, and with them the score."
        )
    else:
        text += " Its method promises that what a task has learned never changes, to the bit."
    return f"{text}\n\nThe file does not know what is marked {_NEEDED}: fill it in."


def _details(opened: PackedFile, spec: Network) -> str:
    header = opened.header
    kinds = listed(sorted({_TAGS[record.kind].replace("-", " ") for record in header.tasks}))
    return f"""## Model Details

### Model Description

- **Developed by:** {_NEEDED}
- **Model type:** {kinds}; {_architecture(spec)}
- **License:** {_NEEDED}
- **Finetuned from model:** {_origin(spec)}
- **Method:** {code_span(header.method)}, as its configuration calls it
- **Seed:** {header.seed}"""


def _architecture(spec: Network) -> str:
    if isinstance(spec, PerceptronNetwork):
        units = ", ".join(map(str, spec.hidden))
        return f"multilayer perceptron with ReLU, hidden layers of {units} units"
    if isinstance(spec, PluginNetwork):
        return f"{code_span(spec.plugin)}, code of its authors that is no part of acll"
    if isinstance(spec, BackboneNetwork):
        return code_span(spec.backbone)
    return f"decoder {code_span(spec.decoder)} on the encoder {code_span(spec.encoder)}"


def _origin(spec: Network) -> str:
    """Return in words where the weights were before the first task was learned."""
    if isinstance(spec, OF_ONE_WIDTH) or spec.weights == "none":
        return "none; weights were drawn at random"
    if spec.weights == "imagenet":
        name = spec.backbone if isinstance(spec, BackboneNetwork) else spec.encoder
        return f"{code_span(name)} with weights of ImageNet"
    return f"the weights of the file {code_span(spec.weights)}"


def _uses(tasks: Sequence[TaskRecord]) -> str:
    rows = [
        [
            str(position),
            code_span(record.name),
            record.kind,
            str(len(record.classes)),
            " x ".join(map(str, record.image_size)),
            str(len(record.mean)),
        ]
        for position, record in enumerate(tasks, 1)
    ]
    heads = ["", "task", "kind", "classes", "height x width", "channels"]
    classes = "\n".join(
        f"- {code_span(record.name)}: {', '.join(map(code_span, record.classes))}"
        for record in tasks
    )
    return f"""## Uses

### Direct Use

{_table(heads, rows)}

Classes, by their indices from 0 on:

{classes}

### Out-of-Scope Use

A classification task says of each image, and a segmentation task of each pixel, that it shows one
of the classes of the task, also where it shows none of them."""


def _limitations() -> str:
    return f"""## Bias, Risks, and Limitations

The file does not know

- under which licence the network may be used: {_NEEDED}
- where the images of each task come from, under which licence, and whom or what they show or leave
  out: {_NEEDED}
- how it scores on test images: {_NEEDED}"""


def _start(opened: PackedFile, plugged: bool) -> str:
    """Return how it is loaded. plugged: whether that takes the file of a plug-in."""
    name, first = opened.tensor_file.path.name, {}
    for record in reversed(opened.header.tasks):
        first[record.kind] = record.name
    given = json.dumps(name)
    file = shlex.quote(harmless(name))
    needed = "With the Python package `acll`"
    if plugged:
        own = quoted(opened.header.network.get(PLUGIN_FILE, "FILE"))
        given += f", plugins=[{json.dumps(own)}]"
        file += f" --plugins {shlex.quote(own)}"
        needed += f" and your copy of {code_span(own)}, the code of its authors, which is run"
    lines = ["import acll", "", f"packed = acll.load({given})"]
    commands = []
    for kind, task in first.items():
        lines.append(f'prediction = packed.predict("{task}", "image.png")')
        if kind == "classification":
            lines.append("print(prediction.label, prediction.top(3))")
            commands.append(f"acll predict {file} --task {task} image.png")
        else:
            lines.append("print(prediction.mask.shape)  # [height, width]: indices of classes")
            commands.append(f"acll predict {file} --task {task} --out masks image.png")
    return "\n".join(
        [
            "## How to Get Started with the Model",
            "",
            f"{needed}:",
            "",
            *("```python", *lines, "```"),
            "",
            "On the command line:",
            "",
            *("```sh", *commands, "```"),
        ]
    )


def _training(opened: PackedFile) -> str:
    header = opened.header
    prepared = [
        [
            code_span(record.name),
            record.pixel,
            _preparation(record),
            *(", ".join(f"{value:.4g}" for value in own) for own in (record.mean, record.std)),
        ]
        for record in header.tasks
    ]
    chosen = [[code_span(record.name), *_choice(record)] for record in header.tasks]
    return f"""## Training Details

### Training Data

{_NEEDED}

### Training Procedure

#### Preprocessing

Values of pixels are shares of white; from these the mean of their channel is subtracted, and what
is left is divided by its standard deviation (std).

{_table(["task", "pixels", "images", "mean", "std"], prepared)}

#### Training Hyperparameters

Recorded are the seed ({header.seed}) and for each task: the epochs of its training before anything
was released, the share of the weights that were free then and that it released (ratio) or kept, the
ratio that a search found with the range that it may lie in, and the largest share that it might
keep (cap).

{_table(["task", "epochs", "ratio", "kept", "found", "range", "cap"], chosen)}

Other settings of the training: {_NEEDED}

{_sizes(opened)}"""


def _preparation(record: TaskRecord) -> str:
    """Return in words how the images of a task are prepared, but for their normalisation."""
    overlap = record.tile_overlap
    words = ["resized" if overlap is None else f"cut into tiles that overlap by {overlap} pixels"]
    if record.rotate:
        words.append(f"rotated by {record.rotate:g} degrees")
    if record.permute is not None:
        words.append(f"pixels reordered by seed {record.permute}")
    return ", ".join(words)


def _choice(record: TaskRecord) -> list[str]:
    """Return what a record says of what a task released; empty where it says nothing."""

    def number(key: str) -> float | None:
        value = record.choice.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    ratio, low, high = number("ratio"), number("ratio_low"), number("ratio_high")
    return [
        str(len(record.curve)) if record.curve else "",
        *(_share(value) for value in (ratio, None if ratio is None else 1 - ratio)),
        _share(number("ratio_searched")),
        "" if low is None or high is None else f"{_share(low)} to {_share(high)}",
        _share(number("cap")),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _sizes(opened: PackedFile) -> str:
    header, size = opened.header, opened.tensor_file.path.stat().st_size
    total, parts = sum(layer.count for layer in header.layers), parts_of(header)
    free = total - sum(sum(layer.owned) for layer in header.layers)
    separate = sum(bytes_alone(header, record.name) for record in header.tasks)
    rows = []
    for position, record in enumerate(header.tasks, 1):
        owned, read = weights_owned(header, position), weights_read(header, position)
        left_out = sum(layer.unread[position - 1] for layer in header.layers)
        counts = [owned if record.frozen else None, read, left_out, parts.private[record.name]]
        rows.append(
            [
                code_span(record.name),
                *("" if count is None else f"{count:,}" for count in counts),
            ]
        )
    heads = ["task", "owns", "reads", "leaves out", "bytes of its own state"]
    return f"""#### Speeds, Sizes, Times

- {total:,} shared weights, of which {free:,} are free
- {size:,} bytes: weights {parts.weights:,}, who owns them {parts.owners:,}, state of single tasks
  {sum(parts.private.values()):,}, header {parts.header:,}
- {size / separate:.1%} of the bytes of a network for each task ({separate:,}), of which nothing is
  released

A task reads weights of its own and of tasks before it, some of which it may leave out.

{_table(heads, rows)}"""


def _evaluation(tasks: Sequence[TaskRecord]) -> str:
    metrics = [text for name, text in _METRICS.items() if name in {one.metric for one in tasks}]
    rows = [
        [
            code_span(record.name),
            METRIC_WORDS[record.metric],
            "validation",
            f"{record.validation_score:.4f}",
        ]
        for record in tasks
    ]
    return f"""## Evaluation

### Testing Data, Factors & Metrics

#### Testing Data

Scores are of the validation split of each task, when it was learned. Settings may have been chosen
by them, so those of other images may be lower.

#### Metrics

{" ".join(metrics)}

### Results

{_table(["task", "metric", "split", "score"], rows)}"""


def _technical(opened: PackedFile, spec: Network) -> str:
    tasks = opened.header.tasks
    widths = {
        code_span(record.name): record.width
        for position, record in enumerate(tasks, 1)
        if grew(tasks, position, opened.header.network)
    }
    text = f"{_architecture(spec)}; {spec.channels} channels"
    if not isinstance(spec, OF_ONE_WIDTH):
        text += f", width {width_of(spec):g}"
    if widths:
        text += f"; it grew {grown_words(widths)}"
    known = opened.tensor_file.header.get("versions")
    found = [
        f"- {name} {code_span(quoted(known[name], 40))}"
        for name in OF_NETWORKS
        if isinstance(known, dict) and name in known
    ]
    software = "\n".join(found) or _NEEDED
    return f"""## Technical Specifications

### Model Architecture and Objective

{text[0].upper()}{text[1:]}

### Compute Infrastructure

#### Software

The file was written with

{software}"""
