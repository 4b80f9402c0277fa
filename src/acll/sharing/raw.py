"""Identities of raw data and weights, also where a colleague does not have them.

Raw data are not shared, and results must be of use without them. Where they are not here, their
identity is the one that was recorded when they were read. Then only what is made from them directly
cannot be made again.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from acll.config import tree
from acll.config.configuration import Configuration
from acll.data.faults import in_words, some
from acll.data.identity import identity, tracked
from acll.data.storage import is_compressed
from acll.data.task import RawData, Task
from acll.errors import UserError
from acll.files import sha256
from acll.networks.buildable import Wanted
from acll.networks.spec import PluginNetwork, body_kind
from acll.node import DENSE, LEARNED
from acll.parameters.prepare import prepared_settings
from acll.settings import Kind
from acll.sharing.records import Record, read_record


def recorded_identity(
    configuration: Configuration, name: str, results: Path, root: Path
) -> str | None:
    """Return the identity of a task's raw data that are not here, from the record of their
    preparation; of a variant, from that of the task that it is made from.

    root: of the data. None where they are here, or where no preparation with these settings is
    recorded.
    """
    name = configuration.made_from.get(name, name)
    task = configuration.tasks[name]
    path = getattr(task, "path", None)
    if path is None or (root / path).exists() or tracked(root / path) is not None:
        return None
    record = read_record(results, f"data/{name}.train.safetensors")
    if record is None or _settings_in(record) != _without_overrides(
        prepared_settings(task).model_dump(mode="json")
    ):
        return None
    return str(record.params["external_digest"])


def _settings_in(record: Record) -> dict[str, Any]:
    """Return the settings of a task that its preparation has recorded."""
    settings = record.params.get("params", {}).get("task")
    return _without_overrides(settings if isinstance(settings, dict) else {})


def _without_overrides(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a task less those on which nothing prepared depends."""
    return {key: value for key, value in settings.items() if key not in ("training", "metric")}


def raw_identities(
    configuration: Configuration,
    tasks: Iterable[str],
    root: Path,
    results: Path,
    cache: Path,
    anew: bool = False,
) -> dict[str, str]:
    """Return the identity of the raw data of each task, by content.

    root: of the data. cache: a file of digests that are known already. anew: read all files again.
    Raises UserError with a line for each fault.
    """
    found: dict[str, str] = {}
    read: dict[str, str] = {}  # tasks made from one source have one identity
    faults: dict[str, list[str]] = {}  # what is wrong, with whom
    for name in sorted(tasks):
        task = configuration.tasks[name]
        known = recorded_identity(configuration, name, results, root)
        try:
            if known is None and (known := read.get(task.source_key())) is None:
                known = read[task.source_key()] = identity(task, root, cache, anew)
            found[name] = known
        except UserError as error:
            faults.setdefault(str(error), []).append(name)
    _refuse(faults)
    return found


def raw_warnings(configuration: Configuration, root: Path) -> list[str]:
    """Return lines about raw data that are here and may not be what is meant, such as unused files.

    Not a pixel is read, and no compressed archive is read through. Files that their names or a
    table show to be of no use, such as an image without a mask, are among the lines where they are
    skipped. Raises UserError with a line for each fault; such files are one where they stop a run.
    """
    learned = configuration.learned()
    names: dict[str, list[str]] = {}  # of the tasks that are made from one source
    for name, task in configuration.tasks.items():
        path = root / task.path if isinstance(task, RawData) else None
        if path is not None and path.exists() and not is_compressed(path):
            names.setdefault(task.source_key(), []).append(name)
    lines: list[str] = []
    faults: dict[str, list[str]] = {}
    for of_source in names.values():
        try:
            manifest = configuration.tasks[of_source[0]].manifest(root)
        except UserError as error:
            faults.setdefault(str(error), []).extend(of_source)
        else:
            lines += [f"tasks.{some(of_source)}: {line}" for line in in_words(manifest.warnings)]
            useless = in_words(manifest.faults)
            stopped = [
                name
                for name in of_source
                if name in learned and configuration.tasks[name].on_error == "stop"
            ]
            others = [name for name in of_source if name not in stopped]
            if useless and others:
                lines += [f"tasks.{some(others)}: {line}" for line in useless]
            if useless and stopped:
                count = len(manifest.faults)
                what = "1 file" if count == 1 else f"{count:,} files"
                head = f"{what} cannot be used (on_error: stop; `skip` leaves out such files)"
                for line in [head, *useless]:
                    faults.setdefault(line, []).extend(stopped)
    _refuse(faults)
    return lines


def _refuse(faults: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError with a line for each fault, where there are any. faults: with their tasks."""
    if faults:
        raise UserError(
            "\n".join(f"tasks.{some(names)}: {fault}" for fault, names in faults.items())
        )


def weight_identities(configuration: Configuration, root: Path, results: Path) -> dict[str, str]:
    """Return the identity of the weights that each network starts from; of a file by its content.

    root: of the data. Raises UserError with a line for each file that is neither here nor recorded.
    """
    found, faults = {}, []
    for name, network in configuration.specs.items():
        path = root / network.weights
        if network.weights in ("none", "imagenet"):
            found[name] = network.weights
        elif name in configuration.given and not _start_from_weights(configuration):
            found[name] = ""  # it has what its tasks have made of them
        elif path.is_file():
            found[name] = sha256(path)
        elif (known := _recorded_weights(configuration, name, results)) is not None:
            found[name] = known
        else:
            faults.append(
                f"networks.{name}.weights = {network.weights!r}: there is no such file in {root}"
            )
    if faults:
        raise UserError("\n".join(faults))
    return found


def _start_from_weights(configuration: Configuration) -> bool:
    """Return whether later tasks of some method start from the weights of their network."""
    rules = (method.training_rule() for method in configuration.methods.values())
    return any(rule.free_from(2) == "pretrained" for rule in rules)


def wanted_networks(configuration: Configuration, root: Path, results: Path) -> dict[str, Wanted]:
    """Return each network with the kinds of tasks that it is to learn and its file of weights.

    Packed ones that start from no such file are left out. root: of the data. Raises UserError as
    `weight_identities`.
    """
    identities = weight_identities(configuration, root, results)
    kinds: dict[str, list[Kind]] = {}
    for sequence in configuration.sequences.values():
        tasks = [configuration.tasks[task] for task in sequence.tasks]
        kinds.setdefault(sequence.network, []).extend(task.kind for task in tasks)
    wanted = {}
    for name, of_tasks in kinds.items():
        network = configuration.specs[name]
        sizes = [
            configuration.tasks[task].image_size
            for sequence in configuration.sequences.values()
            if sequence.network == name and isinstance(network, PluginNetwork)
            for task in sequence.tasks
        ]
        path = root / network.weights
        own = path if network.weights not in ("none", "imagenet") and path.is_file() else None
        if name in configuration.given and own is None:
            continue  # `adopt` compares it with its file, which takes no memory for what it claims
        # the one that has every part is built, too: it is what tasks share
        kinds_built = [*of_tasks, body_kind(network)]
        wanted[name] = Wanted(network, kinds_built, own, identities[name], sizes)
    return wanted


def not_here(configuration: Configuration, root: Path, results: Path) -> list[str]:
    """Return in words which raw data, weights and packed networks are not here and are known from
    records alone."""
    tasks = [
        f"the raw data of {name}"
        for name, task in configuration.tasks.items()
        if recorded_identity(configuration, name, results, root) is not None
        or _with_dvc_alone(task, root)
    ]
    weights = [
        f"the weights of {name}"
        for name, network in configuration.specs.items()
        if name not in configuration.given
        and network.weights not in ("none", "imagenet")
        and not (root / network.weights).is_file()
    ]
    packed = [
        f"the packed network {name}"
        for name, network in configuration.packed.items()
        if not (root / network.packed).is_file()
    ]
    return tasks + weights + packed


def _with_dvc_alone(task: Task, root: Path) -> bool:
    """Return whether raw data are not here, and DVC knows their digest."""
    path = getattr(task, "path", None)
    return path is not None and not (root / path).exists() and tracked(root / path) is not None


def _recorded_weights(configuration: Configuration, name: str, results: Path) -> str | None:
    """Return the identity of a network's file of weights from the record of a training.

    None where none is recorded that started from it.
    """
    settings = configuration.specs[name].model_dump(mode="json")
    own = [node for node in tree.nodes(configuration) if node.network == name]
    # the dense network of a first task may be that of several methods
    nodes = [one for node in own for one in (node, node.shared(DENSE), node.shared(LEARNED))]
    folders = [node.folder for node in nodes]
    for folder in folders:
        record = read_record(results, f"{folder}/dense.safetensors")
        if record is None or not record.params:
            continue
        if record.params["params"]["node"]["network"] == settings:
            return str(record.params["external_digest"])
    return None
