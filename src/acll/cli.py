"""What a person types: `acll check`, `acll verify`, `acll table` and so on; `make` has a target for most."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from acll.config import ConfigurationError, load
from acll.errors import UserError
from acll.settings import Configuration

if TYPE_CHECKING:
    from acll.settings import Torchvision
    from acll.sharing.jobs import Job
    from acll.sharing.verify import Fault

EXAMPLES = """examples:
  acll check config/demo.yaml
  acll verify config/demo.yaml
  acll table results/demo
  acll prove results/demo
  acll inspect results/demo/nodes/small/adaptive/seed0/textures/digits/network.safetensors
"""
_CONFIGURATION = "config/<name>.yaml"
_RESULTS = "results/<name>"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run a command. Errors of the user's end with their message and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="acll",
        description="Lifelong learning by adaptive compression.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(function: Callable[..., None], argument: str, words: str) -> argparse.ArgumentParser:
        own = commands.add_parser(function.__name__.strip("_").replace("_", "-"), help=words, description=words)
        own.add_argument("path", type=Path, metavar=argument)
        own.set_defaults(function=function)
        return own

    command(_check, _CONFIGURATION, "check a configuration and its raw data, without running anything")
    command(_download, _CONFIGURATION, "fetch and verify the datasets of torchvision that it names")
    command(_ready, _CONFIGURATION, "check it, that no run is on, and that dvc.yaml has a stage for it: add one if not")
    command(_table, _RESULTS, "print the tables of a run")
    report = command(_report, _CONFIGURATION, "write the report of a run: one HTML file with figures and tables")
    report.add_argument("--if-changed", action="store_true", help="only where what it shows is newer than it is")
    command(_prove, _RESULTS, "check in the packed files of a run that nothing was forgotten")
    command(_inspect, "network.safetensors", "say what a packed network holds")
    command(_verify, _CONFIGURATION, "check by content that all results are what this commit would make")
    command(_repair, _CONFIGURATION, "put back, or make again, results that are damaged or missing")
    command(_share, _CONFIGURATION, "verify results, commit them to DVC and push them")
    pull = command(_pull, _CONFIGURATION, "bring shared results and verify them")
    pull.add_argument("--what", choices=["all", "tables"], default="all", help="`tables`: without the networks")
    command(_stale, _CONFIGURATION, "list results that the configuration no longer names")
    command(_prune_results, _CONFIGURATION, "remove results that the configuration no longer names")
    given = vars(parser.parse_args(arguments))
    function = given.pop("function")
    del given["command"]
    try:
        function(**given)
    except BrokenPipeError:  # `acll table … | head`
        sys.stdout = None
    except (UserError, OSError) as error:
        for line in str(error).splitlines():
            print(line if line.startswith(" ") else f"error: {line}", file=sys.stderr)
        sys.exit(1)


def _check(path: Path) -> None:
    from acll import tree
    from acll.data.identity import FINGERPRINTS
    from acll.data.root import data_root
    from acll.sharing.raw import raw_identities, weight_identities

    configuration = load(path)
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
    _tell_not_here(configuration, root, results)
    nodes, runs = tree.nodes(configuration), tree.runs(configuration)
    loop = sum(len(run.tasks) for run in runs)
    print(f"{path}: sound; {len(runs)} runs of {loop} tasks in all, which share {len(nodes)} networks")


def _tell_not_here(configuration: Configuration, root: Path, results: Path) -> None:
    from acll.sharing.raw import not_here

    absent = not_here(configuration, root, results)
    if absent:
        print(f"not in {root}, so taken to be what they were when they were read: {', '.join(absent)}")


def _download(path: Path) -> None:
    from acll.data.sources.torchvision_sets import list_torchvision

    fetched = _fetch(path, list_torchvision)  # reads the lists of files, so that it notices what is incomplete
    print(f"{path}: {fetched} datasets fetched")
    _check(path)


def _fetch(path: Path, look: "Callable[[Torchvision, Path], object]") -> int:
    """Fetch the datasets of torchvision in which `look` finds something missing; how many these were."""
    from acll.data.root import data_root
    from acll.settings import Torchvision

    configuration = load(path)
    tasks = {name: task for name, task in configuration.tasks.items() if isinstance(task, Torchvision)}
    if not tasks:
        return 0
    from acll.data.catalogue import source_of
    from acll.data.identity import tracked
    from acll.data.sources.torchvision_sets import KNOWN, download
    from acll.sharing.raw import recorded_identity

    root = data_root(configuration.data_root)
    results = path.resolve().parent.parent / "results" / configuration.name
    seen: set[str] = set()
    fetched = 0
    for name, task in tasks.items():
        if KNOWN[task.dataset].by_hand or tracked(root / task.path) is not None or source_of(task) in seen:
            continue  # `check` says what is missing
        if recorded_identity(results, name, task, root) is not None:
            continue  # what results know of their raw data is enough for them
        seen.add(source_of(task))
        try:
            look(task, root)
        except UserError:
            print(f"{name}: fetching {task.dataset} into {root / task.path}", flush=True)
            download(task, root)
            fetched += 1
    return fetched


def _ready(path: Path) -> None:
    from acll.data.catalogue import raw_files
    from acll.lock import held
    from acll.sharing.records import recorded
    from acll.sharing.stages import add_stage
    from acll.sharing.transfer import forget_ended, has_remote, knows

    _fetch(path, raw_files)
    _check(path)
    root, name = _place(path)
    results = root / "results" / name
    # Snakemake takes the results when it begins; this says sooner, and more plainly, that it will not get them
    with held(results):
        forget_ended(root)
    if add_stage(root / "dvc.yaml", name):
        print(f"dvc.yaml: a stage for {name}, its metrics and plots have been added")
    if not recorded(results) and knows(root, name) and has_remote(root):
        print(f"dvc.lock knows results of this: `make pull CONFIG={name}` brings them, where a run makes them anew")


def _table(path: Path) -> None:
    text = path / "tables" / "tables.txt"
    if not text.is_file():
        raise UserError(f"{text}: there is no such file; has the run ended?")
    print(f"\n{text.read_text(encoding='utf-8')}\ntables: {path}/tables   figures: {path}/figures")


def _report(path: Path, if_changed: bool) -> None:
    from acll.sharing.leftovers import REPORT

    root, name = _place(path)
    results = root / "results" / name
    target = results / REPORT
    shows = [path, *results.glob("tables/*"), *results.glob("figures/**/*.png")]
    newest = max(shown.stat().st_mtime for shown in shows)
    if not if_changed or not target.is_file() or target.stat().st_mtime < newest:
        _write_report(root, name, results)
    print(f"report: {target.relative_to(root)} ({target.stat().st_size / 1e6:.1f} MB)")


def _write_report(root: Path, name: str, results: Path) -> Path:
    from acll.evaluation.report import report
    from acll.files import write_text
    from acll.sharing.leftovers import REPORT
    from acll.sharing.stages import as_run

    write_text(results / REPORT, report(results, as_run(root, name)))
    return results / REPORT


def _prove(path: Path) -> None:
    from acll.evaluation.proof import prove
    from acll.tree import Node

    nodes = []
    for file in sorted(path.glob("nodes/**/network.safetensors")):
        network, method, seed, *prefix = file.parent.relative_to(path / "nodes").parts
        nodes.append(Node(network, method, int(seed.removeprefix("seed")), tuple(prefix)))
    if not nodes:
        raise UserError(f"{path}: there is no packed network; has the run ended?")
    proofs = prove(path, sorted(nodes, key=lambda node: node.position))
    for method in sorted({node.method for node in nodes}):
        own = [proof for proof in proofs if proof.node.method == method]
        changed = [proof for proof in own if not proof.equal]
        networks = len({proof.node for proof in own})
        print(f"{method}: {len(own)} tasks in {networks} networks, {len(own) - len(changed)} bit for bit as learned")
        for proof in changed:
            print(f"  changed: {proof.task} in {proof.node.folder}")
    broken = [proof for proof in proofs if proof.frozen and not proof.equal]
    if broken:
        raise UserError(f"{len(broken)} tasks are not what they were when they were learned")


def _inspect(path: Path) -> None:
    from tabulate import tabulate

    from acll.packing import file

    packed = file.read(path)
    total = sum(owner.numel() for owner in packed.owner.values())
    left = sum(int((owner == 0).sum()) for owner in packed.owner.values())
    network = ", ".join(f"{key} {value}" for key, value in packed.network.items())
    print(f"{network}; method {packed.method}, seed {packed.seed}")
    print(f"{total:,} shared weights, {left:,} free ({left / total:.1%}); {path.stat().st_size:,} bytes\n")
    rows = [
        [
            position,
            record.name,
            record.kind,
            len(record.classes),
            "x".join(map(str, record.image_size)),
            f"{record.validation_score:.4f}",
            f"{record.owned:,}",
            f"{record.owned / total:.1%}",
            sum(value.numel() for value in packed.private[record.name].values()),
        ]
        for position, record in enumerate(packed.tasks, start=1)
    ]
    headers = ["", "task", "kind", "classes", "size", "validation", "owned", "share", "private values"]
    print(tabulate(rows, headers=headers, intfmt=","))


# --------------------------------------------------------------------------------------------------------------------
# sharing


def _verify(path: Path) -> None:
    from acll.lock import in_use

    root, name = _place(path)
    user = in_use(root / "results" / name)
    if user:
        print(f"{user}: what it has not done yet counts as missing or stale")
    _verify_results(root, name)


def _verify_results(root: Path, name: str) -> None:
    """Print what is found; raise UserError where anything is wrong."""
    from acll.data.root import data_root
    from acll.sharing.leftovers import leftovers
    from acll.sharing.repair import verified
    from acll.sharing.report import faults_counted, faults_told

    where, configuration = f"results/{name}", load(root / "config" / f"{name}.yaml")
    if not any((root / where).glob("[!.]*")):
        raise UserError(f"{where}: nothing is there; `make pull CONFIG={name}` or `make run CONFIG={name}` brings it")
    jobs, faults = verified(root, name)
    outputs = sum(len(job.outputs) for job in jobs)
    for line in faults_told(faults):
        print(line)
    loose = sum(len(group.files) for group in leftovers(root / where, jobs))
    if loose:
        print(f"{loose} files belong to nothing that the configuration names: see `make stale CONFIG={name}`")
    _tell_foreign(root, name, jobs)
    _tell_not_here(configuration, root / data_root(configuration.data_root), root / where)
    if faults:
        raise UserError(f"{where}: {faults_counted(faults, outputs)}\n{_remedy(faults, name)}")
    print(f"{where}: {outputs} results, all as this commit would make them")


def _remedy(faults: "Sequence[Fault]", name: str) -> str:
    if all(fault.kind in ("stale", "follows") for fault in faults):
        return (
            f"`make run CONFIG={name}` makes them anew; after a change of branch `.venv/bin/dvc checkout run@{name}` "
            "may have them"
        )
    return f"`make repair CONFIG={name}` mends this"


def _tell_foreign(root: Path, name: str, jobs: "Sequence[Job]") -> None:
    from acll.sharing.leftovers import foreign

    files = foreign(root / "results" / name, jobs)
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        print(f"made by no run, but versioned and shared with results/{name}: {', '.join(map(str, files[:3]))}{more}")


def _repair(path: Path) -> None:
    from acll.sharing.jobs import jobs_of
    from acll.sharing.repair import repair

    root, name = _place(path)
    brought, again = repair(root, name, jobs_of(root, name))
    print(f"results/{name}: {brought} files put back as they were, {again} results made again")


def _share(path: Path) -> None:
    from acll.lock import held
    from acll.sharing.transfer import commit, push, require_remote

    root, name = _place(path)
    require_remote(root)
    with held(root / "results" / name):
        _verify_results(root, name)
        commit(root, name)
    unknown = push(root, name)
    if unknown:
        print(f"not in git yet, and needed by whoever pulls these results: {', '.join(unknown)}\n"
              "`git add` and `git commit` them, then `git push`")  # fmt: skip
    else:
        print("shared; `git push` tells your colleagues")


def _pull(path: Path, what: str) -> None:
    from acll.sharing.transfer import look, pull, require_remote

    root, name = _place(path)
    require_remote(root)
    if what == "tables":
        place, files = look(root, name)
        shown = place.relative_to(root)
        print(f"{files} files: {shown}/tables, {shown}/figures and the scores, choices and trials of each network\n"
              f"the networks themselves, to go on from them: `make pull CONFIG={name}`")  # fmt: skip
        print(f"report: {_write_report(root, name, place).relative_to(root)}")
        return
    pull(root, name)
    _verify_results(root, name)


def _stale(path: Path) -> None:
    from acll.sharing.jobs import jobs_of
    from acll.sharing.leftovers import leftovers
    from acll.sharing.report import leftovers_told

    root, name = _place(path)
    jobs = jobs_of(root, name)
    found = leftovers(root / "results" / name, jobs)
    _tell_foreign(root, name, jobs)
    for line in leftovers_told(found):
        print(line)
    if found:
        print(f"the configuration no longer names these; `make prune-results CONFIG={name}` removes them")
    else:
        print(f"results/{name}: runs have left nothing but what the configuration names")


def _prune_results(path: Path) -> None:
    from acll.lock import held
    from acll.sharing.jobs import jobs_of
    from acll.sharing.leftovers import leftovers, remove
    from acll.sharing.report import leftovers_told

    root, name = _place(path)
    results = root / "results" / name
    with held(results):
        found = leftovers(results, jobs_of(root, name))
        remove(results, found)
    for line in leftovers_told(found):
        print(f"removed  {line}")
    print(f"results/{name}: {sum(len(group.files) for group in found)} files removed"
          + ("; what was shared before stays in DVC's cache and remote" if found else ""))  # fmt: skip


def _place(path: Path) -> tuple[Path, str]:
    """The checkout that a configuration belongs to, and its name.

    Raises UserError where the configuration is not sound, or a merge has left conflicts in the files of DVC.
    """
    from acll.sharing.stages import refuse_conflicts

    root = path.resolve().parent.parent
    refuse_conflicts(root)
    return root, load(path).name
