"""Commands around a run: before it, and what came out."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from acll.cli.place import checkout_of, tell_not_here
from acll.config.checks import ConfigurationError, load_configuration
from acll.errors import UserError

if TYPE_CHECKING:
    from acll.data.sources.torchvision import Torchvision


def check(path: Path) -> None:
    """Check a configuration and its raw data, without running anything."""
    from acll import tree
    from acll.data.identity import FINGERPRINTS
    from acll.data.root import data_root
    from acll.sharing.raw import raw_identities, weight_identities

    configuration = load_configuration(path)
    root = data_root(configuration.data_root)
    results = path.resolve().parent.parent / "results" / configuration.name
    cache = path.resolve().parent.parent / FINGERPRINTS
    faults = []
    try:
        weight_identities(configuration, root, results)
    except UserError as error:
        faults += str(error).splitlines()
    try:
        raw_identities(configuration, configuration.tasks, root, results, cache)
    except UserError as error:
        faults += str(error).splitlines()
    if faults:
        raise ConfigurationError("\n".join(f"{path}: {fault}" for fault in faults))
    tell_not_here(configuration, root, results)
    nodes, runs = tree.nodes(configuration), tree.runs(configuration)
    loop = sum(len(run.tasks) for run in runs)
    print(
        f"{path}: sound; {len(runs)} runs of {loop} tasks in all, which share {len(nodes)} networks"
    )


def download(path: Path) -> None:
    """Fetch and verify the datasets of torchvision that a configuration names."""
    fetched = _fetch(
        path, lambda task, root: task.manifest(root)
    )  # reads the lists of files, so that it notices what is incomplete
    print(f"{path}: {fetched} datasets fetched")
    check(path)


def _fetch(path: Path, look: "Callable[[Torchvision, Path], object]") -> int:
    """Fetch the datasets of torchvision in which `look` finds something missing; how many these
    were."""
    from acll.data.root import data_root
    from acll.data.sources.torchvision import Torchvision

    configuration = load_configuration(path)
    tasks = {
        name: task for name, task in configuration.tasks.items() if isinstance(task, Torchvision)
    }
    if not tasks:
        return 0
    from acll.data.identity import tracked
    from acll.data.sources.torchvision import KNOWN, fetch
    from acll.sharing.raw import recorded_identity

    root = data_root(configuration.data_root)
    results = path.resolve().parent.parent / "results" / configuration.name
    seen: set[str] = set()
    fetched = 0
    for name, task in tasks.items():
        if (
            KNOWN[task.dataset].by_hand
            or tracked(root / task.path) is not None
            or task.source_key() in seen
        ):
            continue  # `check` says what is missing
        if recorded_identity(results, name, task, root) is not None:
            continue  # what results know of their raw data is enough for them
        seen.add(task.source_key())
        try:
            look(task, root)
        except UserError:
            print(f"{name}: fetching {task.dataset} into {root / task.path}", flush=True)
            fetch(task, root)
            fetched += 1
    return fetched


def ready(path: Path) -> None:
    """Check a configuration, that no run is on, and that dvc.yaml has a stage for it: add one if
    not."""
    from acll.lock import held
    from acll.sharing.records import recorded
    from acll.sharing.stages import add_stage
    from acll.sharing.transfer import has_remote, knows

    _fetch(path, lambda task, root: task.raw_files(root))
    check(path)
    root, name = checkout_of(path)
    results = root / "results" / name
    # Snakemake takes the results when it begins; this says sooner, and more plainly, that it will
    # not get them
    with held(results):
        pass
    if add_stage(root / "dvc.yaml", name):
        print(f"dvc.yaml: a stage for {name}, its metrics and plots have been added")
    if not recorded(results) and knows(root, name) and has_remote(root):
        print(
            f"dvc.lock knows results of this: `make pull CONFIG={name}` brings them, where a "
            "run makes them anew"
        )


def finish(path: Path) -> None:
    """Record the results of a run for DVC, print its tables and write its report."""
    from acll.sharing.transfer import record

    root, name = checkout_of(path)
    record(root, name)
    table(root / "results" / name)
    report(path, if_changed=True)


def table(path: Path) -> None:
    """Print the tables of a run."""
    text = path / "tables" / "tables.txt"
    if not text.is_file():
        raise UserError(f"{text}: there is no such file; has the run ended?")
    print(f"\n{text.read_text(encoding='utf-8')}\ntables: {path}/tables   figures: {path}/figures")


def report(path: Path, if_changed: bool) -> None:
    """Write the report of a run."""
    from acll.sharing.leftovers import REPORT

    root, name = checkout_of(path)
    results = root / "results" / name
    target = results / REPORT
    shows = [path, *results.glob("tables/*"), *results.glob("figures/**/*.png")]
    newest = max(shown.stat().st_mtime for shown in shows)
    if not if_changed or not target.is_file() or target.stat().st_mtime < newest:
        write_report_of(root, name, results)
    print(f"report: {target.relative_to(root)} ({target.stat().st_size / 1e6:.1f} MB)")


def write_report_of(root: Path, name: str, results: Path) -> Path:
    """Write the report of what lies in `results`; where it is."""
    from acll.evaluation.report import report_page
    from acll.files import write_text
    from acll.sharing.leftovers import REPORT
    from acll.sharing.stages import as_run

    write_text(results / REPORT, report_page(results, as_run(root, name)))
    return results / REPORT


def prove(path: Path) -> None:
    """Check in the packed files of a run that nothing was forgotten."""
    from acll.evaluation.proof import proofs_of
    from acll.node import Node

    nodes = []
    for file in sorted(path.glob("nodes/**/network.safetensors")):
        nodes.append(Node.of(file.parent.relative_to(path / "nodes").as_posix()))
    if not nodes:
        raise UserError(f"{path}: there is no packed network; has the run ended?")
    proofs = proofs_of(path, sorted(nodes, key=lambda node: node.position))
    for method in sorted({node.method for node in nodes}):
        own = [proof for proof in proofs if proof.node.method == method]
        changed = [proof for proof in own if not proof.equal]
        networks = len({proof.node for proof in own})
        print(
            f"{method}: {len(own)} tasks in {networks} networks, {len(own) - len(changed)} bit "
            "for bit as learned"
        )
        for proof in changed:
            print(f"  changed: {proof.task} in {proof.node.folder}")
    broken = [proof for proof in proofs if proof.frozen and not proof.equal]
    if broken:
        raise UserError(f"{len(broken)} tasks are not what they were when they were learned")
