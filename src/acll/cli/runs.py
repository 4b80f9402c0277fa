"""Commands around a run: before it, and on what came out.

What DVC, torch or matplotlib are needed for is imported where it is used: a command must start
quickly.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from acll.cli.checkout import checkout_of, refuse_elsewhere, tell_not_here
from acll.config.checks import ConfigurationError, load_configuration
from acll.errors import UserError
from acll.run_summary import PROFILE, make_command

if TYPE_CHECKING:
    from acll.config.configuration import Configuration
    from acll.data.sources.torchvision import Torchvision
    from acll.evaluation.proof import Proof


def check(path: Path, images: bool) -> None:
    """Check a configuration and its raw data, without running anything.

    images: decode all images and masks, too, as their preparation would. Raises ConfigurationError
    with a line for each fault.
    """
    from acll.config.images import decode_images, tasks_of_files

    faults, sound, configuration = _looked_at(path)
    checkout, name = checkout_of(path)
    if images:
        known = {fault.removeprefix("tasks.") for fault in faults}
        known |= {fault.partition(": ")[2] for fault in faults if fault.startswith("tasks.")}
        for line, is_fault in decode_images(checkout, configuration):
            if not is_fault:
                print(line, flush=True)
            elif line not in known:
                faults.append(line)
    _refuse(path, faults)
    print(sound)
    if not images and tasks_of_files(configuration):
        print(
            "not looked at: what is in images and masks; "
            f"`{make_command('check', name)} IMAGES=1` decodes them all"
        )


def _check(path: Path) -> None:
    """Check all but what is in images and masks. Raises ConfigurationError."""
    faults, sound, _ = _looked_at(path)
    _refuse(path, faults)
    print(sound)


def _refuse(path: Path, faults: Sequence[str]) -> None:
    if faults:
        raise ConfigurationError("\n".join(f"{path}: {fault}" for fault in faults))


def _looked_at(path: Path) -> tuple[list[str], str, "Configuration"]:
    """Return the faults of all but what is in images and masks, what to say if there are none, and
    the configuration, whose packed networks are opened where that can be.

    Where there are no faults, it prints the warnings.
    """
    from acll.config import tree
    from acll.data.identity import FINGERPRINTS
    from acll.data.root import data_root
    from acll.networks.buildable import SOUND_NETWORKS, faults_and_notes
    from acll.sharing.given import open_given
    from acll.sharing.raw import raw_identities, raw_warnings, wanted_networks
    from acll.training.probe import SOUND_PLUGINS, faults_of_plugins

    checkout, name = checkout_of(path)
    configuration = load_configuration(path)
    root = data_root(configuration.data_root)
    results = checkout / "results" / name
    faults: list[str] = []
    notes: list[str] = []
    try:
        configuration = open_given(configuration, root, results)
        wanted = wanted_networks(configuration, root, results)
        faults, notes = faults_and_notes(wanted, checkout / SOUND_NETWORKS)
        used = [
            (configuration.tasks[name].kind, configuration.batches_of(name))
            for name in sorted(configuration.learned())
        ]
        faults += faults_of_plugins(used, checkout / SOUND_PLUGINS)
    except UserError as error:
        faults += str(error).splitlines()
    warnings: list[str] = []
    try:
        raw_identities(configuration, configuration.tasks, root, results, checkout / FINGERPRINTS)
        warnings = raw_warnings(configuration, root)
    except UserError as error:
        faults += str(error).splitlines()
    if faults:
        return faults, "", configuration
    for warning in warnings:
        print(f"{path}: warning: {warning}")
    for note in notes:
        print(f"{path}: {note}")
    partly = tell_not_here(configuration, root, results)
    nodes, runs = tree.nodes(configuration), tree.runs(configuration)
    tasks = sum(len(run.tasks) - len(configuration.tasks_before(run.network)) for run in runs)
    counts = f"runs: {len(runs)}, of tasks in all: {tasks}; networks on the way: {len(nodes)}"
    how_far = ", as far as it can be told without them" if partly else ""
    return [], f"{path}: sound{how_far}; {counts}", configuration


def list_plan(path: Path) -> None:
    """Say which jobs a run would run, and why. Nothing is written. Raises UserError."""
    from acll.sharing.planned import jobs_of
    from acll.sharing.report import reasons_told
    from acll.sharing.to_run import reasons_to_run

    refuse_elsewhere(path)
    _check(path)
    root, name = checkout_of(path)
    jobs = jobs_of(root, name)
    reasons = reasons_to_run(root / "results" / name, jobs)
    print("\n".join(reasons_told(reasons, len(jobs))))


def download(path: Path) -> None:
    """Fetch and verify the datasets of torchvision that a configuration names."""
    # a manifest reads the lists of files, so that it notices what is incomplete
    fetched = _fetch(path, lambda task, root: task.manifest(root))
    print(f"{path}: {fetched} datasets fetched")
    _check(path)


def _fetch(path: Path, read: "Callable[[Torchvision, Path], object]") -> int:
    """Fetch the datasets of torchvision that are not complete; return how many these were.

    read: called with a task and the data root; raises UserError where something is missing.
    """
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
    checkout, name = checkout_of(path)
    results = checkout / "results" / name
    seen: set[str] = set()
    fetched = 0
    for name, task in tasks.items():
        by_hand = KNOWN[task.dataset].by_hand or tracked(root / task.path) is not None
        if by_hand or task.source_key() in seen:
            continue  # what a person has to bring, or `dvc pull`; `check` says what is missing
        if recorded_identity(configuration, name, results, root) is not None:
            continue  # what results know of their raw data is enough for them
        seen.add(task.source_key())
        try:
            read(task, root)
        except UserError:
            print(f"{name}: fetching {task.dataset} into {root / task.path}", flush=True)
            fetch(task, root)
            fetched += 1
    return fetched


def ready(path: Path) -> bool:
    """Get a run ready; return whether there is anything to run.

    Check the configuration, and that no other run works on its results. Add its stage to dvc.yaml
    where there is none. Raises UserError.
    """
    from acll.lock import held
    from acll.sharing.leftovers import remove_checkpoints
    from acll.sharing.planned import jobs_of
    from acll.sharing.records import recorded, unfinished
    from acll.sharing.stages import add_stage
    from acll.sharing.to_run import reasons_to_run
    from acll.sharing.transfer import has_remote, knows, require_repository
    from acll.sharing.verify import settle_marks

    refuse_elsewhere(path)
    root, name = checkout_of(path)
    _fetch(path, lambda task, root: task.raw_files(root))
    _check(path)
    require_repository(root)
    results = root / "results" / name
    # Snakemake takes the results when it begins; this says sooner, and more plainly, that it will
    # not get them
    with held(results):
        jobs = jobs_of(root, name)
        if unfinished(results):
            settle_marks(results, jobs)
        is_done = not reasons_to_run(results, jobs)
        if is_done:
            remove_checkpoints(results, jobs)  # of a run that was killed after its last job
    if add_stage(root / "dvc.yaml", name):
        print(f"dvc.yaml: a stage for {name}, its metrics and plots have been added")
    if not recorded(results) and knows(root, name) and has_remote(root):
        print(
            f"dvc.lock knows results of this: `{make_command('pull', name)}` brings them, where a "
            "run makes them anew"
        )
    return not is_done


def run(path: Path, verbose: bool, profile: str | None = None) -> None:
    """Run a configuration, which does only what has changed; print its tables, write its report.

    Ctrl-C ends it with exit code 130. verbose: show all that Snakemake says. profile: one of the
    folder `profiles`, which says where jobs run; None: on this machine. Raises UserError.
    """
    from acll.cli.interrupts import end_on_interrupt
    from acll.cluster.profile import arguments_of, uses_slurm
    from acll.cluster.queue import cancel_jobs, names_for_run
    from acll.run_settings import MARK, NO_RUN
    from acll.sharing.transfer import load_dvc

    if profile:
        os.environ[PROFILE] = profile
    again = make_command("run", path.stem)
    names, submits = "", False

    def clear_queue() -> None:
        """Leave no job of this run in the queue."""
        if submits:
            cancel_jobs(names)

    end_on_interrupt(f"`{again}` goes on where this stopped", clear_queue)
    refuse_elsewhere(path)
    root, name = checkout_of(path)
    names = names_for_run(root / "results" / name)
    verbosity = ["--logger-acll-verbose"] if verbose else []
    where = arguments_of(root, profile, names) if profile else []
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "mark"
        arguments = [*_snakemake(root, name), *verbosity, *where]
        with _waiting(arguments, root, {MARK: str(mark)}) as (process, go):
            is_work = ready(path)
            # on a cluster the queue is cleared, too; and a person may want to hear Snakemake, or
            # have set it to something of their own
            if not (is_work or profile or verbose or "SNAKEMAKE_PROFILE" in os.environ):
                print("nothing to run: all results are there")
                finish(path)
                return
            submits = uses_slurm(where)
            go()
            load_dvc(root)  # meanwhile, for `finish`
            code = process.wait()
            try:
                clear_queue()
            except UserError as error:  # which takes nothing from what was made
                print(f"warning: {error}", file=sys.stderr)
            submits = False
        has_run = mark.exists()
    if code < 0:
        how = signal.Signals(-code).name
        raise UserError(f"the run was ended by {how}; `{again}` goes on")
    if code:  # the run has said why
        sys.exit(1)
    if not has_run:
        raise UserError(NO_RUN)
    finish(path)


@contextlib.contextmanager
def _waiting(
    arguments: Sequence[str], root: Path, variables: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], None]]]:
    """Start a process that imports Snakemake and waits. Yield it, and what lets it run.

    If that is not called, the process ends, and has written nothing. Its code is that of the rules
    in the folder `root`, as it is later for their jobs. variables: of its environment, beside ours.
    """
    from acll.cluster.profile import PLUGINS, uses_slurm
    from acll.sharing.place import source_of

    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "acll.cli.waiting", str(reading), str(os.getpid())]
    command += arguments
    # the executor of a profile lies apart, since Snakemake imports each that it finds
    places = [str(source_of(root)), *([str(PLUGINS)] if uses_slurm(arguments) else [])]
    environment = os.environ | variables | {"PYTHONPATH": os.pathsep.join(places)}
    environment["PYTHONWARNINGS"] = "ignore"  # of Snakemake's parts among themselves
    told = False
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        with os.fdopen(reading, "rb"):
            process = subprocess.Popen(command, cwd=root, env=environment, pass_fds=[reading])

        def go() -> None:
            nonlocal told
            told = True
            with contextlib.suppress(BrokenPipeError):  # its end says that it has failed
                pipe.write(b"!")

        with process:  # which waits for its end
            try:
                yield process, go
            finally:
                if not told:
                    process.kill()


def _snakemake(root: Path, name: str) -> list[str]:
    """Return Snakemake's arguments for a configuration of the folder `root`."""
    from acll.sharing.place import snakefile_of

    arguments = [f"--snakefile={snakefile_of(root)}", f"--configfile=config/{name}.yaml"]
    return [*arguments, f"--directory=results/{name}"]


def snakemake(path: Path) -> None:
    """Run Snakemake alone, as the stages of DVC do in a project of one's own.

    Ends with the exit code of Snakemake.
    """
    root, name = checkout_of(path)
    command = [sys.executable, "-m", "snakemake", *_snakemake(root, name)]
    sys.exit(subprocess.run(command, cwd=root, check=False).returncode)


def finish(path: Path) -> None:
    """Print the tables of a run, write its report, and record its results for DVC."""
    from acll.lock import held
    from acll.sharing.given import load_opened
    from acll.sharing.short_names import link_networks
    from acll.sharing.stages import add_stage
    from acll.sharing.transfer import record

    root, name = checkout_of(path)
    results = root / "results" / name
    here = Path.cwd()
    table(results.relative_to(here) if results.is_relative_to(here) else results)
    add_stage(root / "dvc.yaml", name)  # where the run did not begin with `ready`
    with held(results):  # what is recorded must not change meanwhile
        links = link_networks(results, load_opened(path))
        record(root, name)
    print(f"networks: results/{name}/{links[0]}{_more(links[1:])}")
    report(path, if_changed=True)  # it shows the configuration that has been recorded


def _more(others: Sequence[object]) -> str:
    """Return in words that there are others."""
    return f" and {len(others)} more" if others else ""


def table(path: Path) -> None:
    """Print the tables of a run. path: the results. Raises UserError where there are none."""
    text = path / "tables" / "tables.txt"
    if not text.is_file():
        raise UserError(f"{text}: there is no such file; has the run ended?")
    print(f"\n{text.read_text(encoding='utf-8')}\ntables: {path}/tables   figures: {path}/figures")


def report(path: Path, if_changed: bool) -> None:
    """Write the report of a run, and say where it is.

    if_changed: only where it does not show what is there.
    """
    root, name = checkout_of(path)
    target = write_report_of(root, name, root / "results" / name, if_changed)
    print(f"report: {target.relative_to(root)} ({target.stat().st_size / 1e6:.1f} MB)")


def write_report_of(root: Path, name: str, results: Path, if_changed: bool = False) -> Path:
    """Write the report of what lies in `results`; return its path.

    if_changed: only where it does not show what is there. Its last line says what it shows.
    """
    from acll.sharing.leftovers import REPORT
    from acll.sharing.stages import as_run

    target, configuration = results / REPORT, as_run(root, name)
    last_line = f"<!-- {_shown(results, configuration)} -->\n"
    if not if_changed or not _ends_with(target, last_line.encode()):
        from acll.evaluation.report import report_page
        from acll.files import write_text

        write_text(target, f"{report_page(results, configuration)}\n{last_line}")
    return target


def _shown(results: Path, configuration: str) -> str:
    """Return the digest of all that a report is made from."""
    from acll.files import sha256

    total = hashlib.sha256(f"{configuration}\n".encode())
    made = ("tables/*", "figures/**/*.svg", "figures/**/*.png")
    for path in sorted(path for pattern in made for path in results.glob(pattern)):
        total.update(f"{path.relative_to(results).as_posix()} {sha256(path)}\n".encode())
    return total.hexdigest()


def _ends_with(path: Path, end: bytes) -> bool:
    if not path.is_file() or path.stat().st_size < len(end):
        return False
    with path.open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def prove(path: Path) -> None:
    """Check in the packed files of a run that nothing was forgotten.

    Raises UserError where a task has changed whose method promises that it does not.
    """
    from acll.evaluation.proof import proofs_of
    from acll.node import Node

    nodes = []
    for file in sorted(path.glob("nodes/**/network.safetensors")):
        nodes.append(Node.of(file.parent.relative_to(path / "nodes").as_posix()))
    if not nodes:
        raise UserError(f"{path}: there is no packed network; has the run ended?")
    proofs = proofs_of(path, sorted(nodes, key=lambda node: node.position))
    by_method: dict[str, list[Proof]] = {}
    for proof in sorted(proofs, key=lambda proof: proof.node.method):
        by_method.setdefault(proof.node.method, []).append(proof)
    for method, own in by_method.items():
        networks = len({proof.node for proof in own})
        equal = sum(proof.equal for proof in own)
        print(
            f"{method}: {equal} of {len(own)} bit for bit as learned (each task, in the network "
            f"after it and in all later ones: {networks} networks)"
        )
        for proof in own:
            if proof.frozen and not proof.equal:
                print(f"  changed: {proof.task} in {proof.node.folder}")
    print(f"\n{_verdict(by_method)}")
    broken = [proof for proof in proofs if proof.frozen and not proof.equal]
    if broken:
        raise UserError(f"{len(broken)} tasks are not what they were when they were learned")


def _verdict(by_method: "Mapping[str, Sequence[Proof]]") -> str:
    """Return in words which methods promise that no task changes, and what came of it."""
    held, broken, others = [], [], []
    for method, own in by_method.items():
        changed = sum(not proof.equal for proof in own)
        if not all(proof.frozen for proof in own):
            others.append(f"{method} ({changed} of {len(own)} tasks changed)")
        elif changed:
            broken.append(method)
        else:
            held.append(method)
    lines = []
    if broken:
        lines.append(f"BROKEN: {', '.join(broken)}: promised that no task changes, but some have")
    if held:
        lines.append(f"proved: {', '.join(held)}: promised that no task changes, and none has")
    if others:
        lines.append(f"no promise, so no failure: {', '.join(others)}")
    return "\n".join(lines)
