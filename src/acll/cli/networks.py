"""Commands on packed networks: what is in them, what differs, predictions, exports, cards."""

import collections
import json
import sys
from collections.abc import Set
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from acll.errors import UserError, harmless
from acll.evaluation.words import METRIC_WORDS, WIDTH, grown_words, shortened
from acll.files import write_text

if TYPE_CHECKING:
    from acll.data.batches import Split
    from acll.serving.export import Precision

_SHORTEST, _LONGEST = 8, 40  # letters that a name of a task keeps
IMAGES_HELP = "files, or folders of them; - reads their names from standard input, one a line"


def inspect(path: Path, as_json: bool) -> None:
    """Print what a packed network holds, and how many bytes its tasks need.

    as_json: for programs.
    """
    from acll.packing import accounting, packed_file
    from acll.serving.model import PackedNetwork

    opened = packed_file.open_packed(path)
    header = opened.header
    total = sum(layer.count for layer in header.layers)
    owned = sum(sum(layer.owned) for layer in header.layers)
    together = accounting.bytes_of_first(header)
    separate = [accounting.bytes_alone(header, record.name) for record in header.tasks]
    tasks = []
    for index, task in enumerate(PackedNetwork(opened).tasks):
        sizes = {
            "bytes_of_first": together[index],
            "bytes_separate": sum(separate[: index + 1]),
        }
        tasks.append(asdict(task) | sizes)
    whole = {
        "network": header.network,
        "method": header.method,
        "seed": header.seed,
        "format": packed_file.FORMAT,
        "weights": total,
        "free": total - owned,
        "bytes": path.stat().st_size,
        "parts": asdict(packed_file.parts_of(header)),
        "tasks": tasks,
    }
    print(json.dumps(whole, indent=1) if as_json else _inspected(whole))


def _inspected(whole: dict[str, Any]) -> str:
    """Return what `inspect` found as text: on the network, its tasks, and the bytes of the file.

    Long names of tasks are cut, so that no line is wider than `WIDTH`.
    """
    network = ", ".join(f"{key} {_in_words(value)}" for key, value in whole["network"].items())
    free_share = whole["free"] / whole["weights"] if whole["weights"] else 0.0
    widths = {task["name"]: task["width"] for task in whole["tasks"] if task["grew"]}
    unread = {task["name"]: share for task in whole["tasks"] if (share := task["unread_share"])}
    lines = [
        f"{network}; method {whole['method']}, seed {whole['seed']}",
        f"{whole['weights']:,} shared weights, {whole['free']:,} free ({free_share:.1%}); "
        f"{whole['bytes']:,} bytes",
        *([f"it grew {grown_words(widths)}"] if widths else []),
        *([f"of the weights of earlier tasks, {_unread(unread)}"] if unread else []),
    ]
    longest = max(len(task["name"]) for task in whole["tasks"])
    table = _table_of_tasks(whole["tasks"], longest)
    beyond = max(map(len, table.splitlines())) - WIDTH
    if beyond > 0:
        table = _table_of_tasks(whole["tasks"], max(_SHORTEST, longest - beyond))
    parts = _table_of_parts(whole["parts"], whole["bytes"])
    return "\n".join([*(fill(line, WIDTH) for line in lines), "", table, "", parts])


def _in_words(value: Any) -> str:
    """Return the value of a setting of a network; options of a plug-in with their names."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={option}" for key, option in value.items()) or "none"
    return str(value)


def _unread(shares: dict[str, float]) -> str:
    """Return in words which share each task does not read."""
    told = {task: "<0.1%" if share < 0.0005 else f"{share:.1%}" for task, share in shares.items()}
    return ", ".join(f"{task} leaves out {share}" for task, share in told.items())


def _table_of_parts(parts: dict[str, Any], total: int) -> str:
    """Return a table of the bytes of a file, by what they are for. total: all of them."""
    from tabulate import tabulate

    private = {
        f"private state of {shortened(name, _LONGEST)}": size
        for name, size in parts["private"].items()
    }
    sizes = {"weights": parts["weights"], "owner maps": parts["owners"]}
    sizes |= private | {"header": parts["header"]}
    rows = [[name, f"{size:,}", f"{size / total:.1%}"] for name, size in sizes.items()]
    table: str = tabulate(
        [["", "bytes", "of the file"], *rows],
        tablefmt="plain",
        disable_numparse=True,
        colalign=("left", "right", "right"),
    )
    return table


def _table_of_tasks(tasks: list[dict[str, Any]], longest: int) -> str:
    """Return a table, a row a task. longest: letters of a name that are shown."""
    from tabulate import tabulate

    rows = [
        [
            position,
            shortened(task["name"], longest),
            len(task["classes"]),
            "x".join(map(str, task["image_size"])),
            f"{METRIC_WORDS[task['metric']]} {task['score']:.4f}",
            "" if task["ratio"] is None else f"{task['ratio']:.3f}",
            "" if task["owned_share"] is None else f"{task['owned_share']:.1%}",
            f"{task['used_share']:.1%}",
            f"{task['bytes_of_first']:,}",
            f"{task['bytes_of_first'] / task['bytes_separate']:.2f}",
        ]
        for position, task in enumerate(tasks, 1)
    ]
    # as rows: tabulate makes columns two letters wider than their heading
    heads = [
        ["", "", "", "", "", "", "", "", "bytes up", "of separate"],
        [
            "",
            "task",
            "classes",
            "size",
            "validation",
            "ratio",
            "owns",
            "uses",
            "to here",
            "networks",
        ],
    ]
    align = ("right", "left", *["right"] * 8)
    table: str = tabulate([*heads, *rows], tablefmt="plain", disable_numparse=True, colalign=align)
    return table


def compare(path: Path, other: Path) -> None:
    """Print what differs between two packed networks; end with exit code 1 where anything does."""
    from tabulate import tabulate

    from acll.packing import packed_file
    from acll.serving.comparison import differences, tasks_compared

    files = [packed_file.open_packed(one) for one in (path, other)]
    rows, lines = tasks_compared(files), differences(files)
    print(tabulate(rows, headers="keys", disable_numparse=True))
    for line in lines:
        print(line)
    if lines or any(row["weights"] != "equal" for row in rows):
        sys.exit(1)
    print("the networks are equal")


def predict(
    path: Path,
    task: str | None,
    images: list[str],
    top: int | None,
    form: str | None,
    out: Path | None,
    device: str,
    plugins: list[str],
) -> None:
    """Print what images show, or write their masks.

    images: files or folders, or `-`. top, form: of classes; None: 3, `table`. out: the folder for
    masks. plugins: files that the network needs. Raises UserError where options do not go with the
    kind of the task. Images that cannot be used are named and left out, and the exit code is 1. An
    interrupt says how many images are done.
    """
    import acll
    from acll.cli import predictions
    from acll.settings import AUTO

    network = acll.load(path, plugins)
    names = [learned.name for learned in network.tasks]
    task = _named(path, task, names, f"; or {AUTO}, for the most likely one of each image")
    kinds = {learned.name: learned.kind for learned in network.tasks}
    kind = AUTO if task == AUTO else network.task(task).kind
    _refuse_options(task, kind, set(kinds.values()), top if form is None else form, out)
    bad: list[str] = []
    files = predictions.files_of(images, bad)
    if kind == "segmentation" and out is None:
        raise UserError(
            f"{task} is a segmentation task: say with --out into which folder its masks go"
        )
    done: list[Path] = []
    results = predictions.each(network, task, list(files), device, bad, done)
    say = print if kind == "segmentation" else _say
    masks = predictions.Masks(out, files, bad, say) if out is not None else None
    if kind == AUTO and masks is None and "segmentation" in kinds.values():
        _say("without --out no masks are written")
    try:
        if masks is not None:
            results = masks.written(results)
        if kind == "segmentation":
            collections.deque(results, maxlen=0)
        else:
            count = 3 if top is None else top
            predictions.print_classes(results, form or "table", count, with_task=kind == AUTO)
        if masks is not None:
            words = f"{masks.count} image{'' if masks.count == 1 else 's'}"
            say(f"{words}: masks and overlays in {out}")
    except KeyboardInterrupt:
        where = f"masks and overlays in {out}" if out is not None else "printed"
        if kind == "classification" and form != "csv":
            where = "none is printed (with --format csv each is, as it is done)"
        raise KeyboardInterrupt(f": {len(done)} of {len(files)} images are done, {where}") from None
    for line in bad:
        print(f"error: {harmless(line)}", file=sys.stderr)
    if bad:
        sys.exit(1)


def _refuse_options(
    task: str, kind: str, kinds: Set[str], of_classes: str | int | None, out: Path | None
) -> None:
    """Raise UserError where options do not go with a task.

    kind: of the task, `auto` where it is not named; kinds: of all tasks. of_classes: an option for
    classes, if one is given.
    """
    if kind == "segmentation" and of_classes is not None:
        raise UserError(
            f"{task} is a segmentation task, which gives masks; --format and --top are for classes"
        )
    if out is None:
        return
    if kind == "classification":
        raise UserError(f"{task} is a classification task, which gives no masks; leave out --out")
    if "segmentation" not in kinds:
        raise UserError("all tasks are classification tasks, which give no masks; leave out --out")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; --out names a folder, which is made if it is not there")


def _say(text: str) -> None:
    """Print beside what programs read."""
    print(text, file=sys.stderr)


def _named(path: Path, task: str | None, tasks: list[str], more: str = "") -> str:
    """Return the task that was named. Raises UserError, with all tasks, where none was.

    more: what else may be said.
    """
    if task is None:
        known = f"{', '.join(tasks)}{more}"
        raise UserError(f"{path}: say with --task which of its tasks is meant: {known}")
    return task


def drop(path: Path, task: str | None, out: Path | None) -> None:
    """Write the network without one of its tasks to another file, and say what became of it.

    Raises UserError, before anything is written, where no task or no file is named.
    """
    from acll.packing import dropping, packed_file

    opened = packed_file.open_packed(path)
    task = _named(path, task, [record.name for record in opened.header.tasks])
    if out is None:
        raise UserError(f"{path}: say with --out which file gets the network without {task}")
    dropped = dropping.write_without(opened, task, out)
    before, after = path.stat().st_size, out.stat().st_size
    print(f"{out}: without {task}, {after:,} bytes ({path.name}: {before:,})")
    print(f"weights that {task} alone read, now free: {dropped.freed:,}")
    if dropped.stayed:
        readers = ", ".join(f"{name} ({count:,})" for name, count in dropped.readers.items())
        print(f"weights of {task} that stay, since other tasks read them: {dropped.stayed:,}")
        print(fill(f"they are read by {readers}", WIDTH))
    if after > before:
        print("the file is larger: to tell which task owns what stays takes more than was freed")
    print("the other tasks are as they were, bit for bit")


def card(path: Path, out: Path | None) -> None:
    """Print the model card of a packed network, or write it. Raises UserError for another ending.

    out: a name that ends with .md, so that no network is written over.
    """
    from acll.packing import packed_file
    from acll.serving.card import card_of

    if out is not None and out.suffix != ".md":
        raise UserError(f"{out}: a model card is Markdown; give it a name that ends with .md")
    if out is not None and out.exists():  # somebody may have filled it in
        raise UserError(f"{out}: is there already; remove it, or give another name")
    opened = packed_file.open_packed(path)
    text = card_of(opened)
    if out is None:
        print(text, end="")
        return
    write_text(out, text)
    print(f"{out}: fill in what the file does not know: [More Information Needed]")


def export(
    path: Path,
    out: Path,
    task: str | None,
    precision: "Precision",
    data: Path | None,
    plugins: list[str],
) -> None:
    """Write one task as ONNX, as an exported program of PyTorch, or as a packed file of its own.

    data: prepared images to score it on; None: those of the run, where the network lies in one.
    plugins: files that the network needs.
    """
    from acll.packing import packed_file
    from acll.plugins import add_plugins
    from acll.serving import export as exporting

    add_plugins(plugins)
    opened = packed_file.open_packed(path)
    task = _named(path, task, [record.name for record in opened.header.tasks])
    prepared = data or _prepared(path, task)
    exported = exporting.export_task(
        opened, task, out, precision, _validation(prepared, task) if prepared else None
    )
    print(f"{out}: {task}, {exported.bytes:,} bytes")
    if exported.compacted is not None:
        (weights, left), (channels, kept) = exported.compacted.weights, exported.compacted.channels
        if kept < channels:
            print(
                f"{channels - kept:,} of {channels:,} channels made no difference and were "
                f"removed, with them {1 - left / weights:.1%} of the weights of layers"
            )
    print(
        f"largest difference of a logit from those of {path.name}: {exported.difference:.1e}, "
        f"of logits up to {exported.largest:.2g}"
    )
    if exported.scores is not None:
        before, after = exported.scores
        print(
            f"score on the validation split: {after:.4f}, of {path.name} {before:.4f} "
            f"({after - before:+.4f})"
        )
    else:
        print("no prepared images are here to measure the score on; name them with --data")


def _prepared(path: Path, task: str) -> Path | None:
    """Return the prepared images of the run whose results a network lies among; None where not."""
    folders = [parent for parent in path.resolve().parents if parent.name == "nodes"]
    found = folders[-1].parent / f"data/{task}.train.safetensors" if folders else None
    return found if found is not None and found.is_file() else None


def _validation(prepared: Path, task: str) -> "Split":
    """Return the validation split of a task. Raises UserError where the file is not of it."""
    from acll.data.batches import splits_of

    try:
        _, validation, header = splits_of(prepared)
    except (UserError, OSError):
        raise UserError(
            f"{prepared}: not the prepared images of a task, data/<task>.train.safetensors of a run"
        ) from None
    if header.name != task:
        raise UserError(f"{prepared}: has images of {header.name}, not of {task}")
    return validation
