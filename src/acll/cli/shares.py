"""Commands that share results, and say whether they are sound.

What DVC is needed for is imported where it is used: it takes most of a second.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from acll.cli.checkout import checkout_of, tell_not_here
from acll.cli.runs import write_report_of
from acll.config.checks import load_configuration
from acll.errors import UserError
from acll.run_summary import make_command

if TYPE_CHECKING:
    from acll.sharing.verify import ResultFault


def verify(path: Path) -> None:
    """Check by content that all results are what this commit would make."""
    root, name = checkout_of(path)
    _tell_in_use(root, name, "what it has not done yet counts as missing, unfinished or stale")
    _verify_results(root, name)


def _tell_in_use(root: Path, name: str, words: str) -> None:
    """Print who works on the results, if anybody does, and what that means here."""
    from acll.lock import in_use

    user = in_use(root / "results" / name)
    if user:
        print(f"{user}: {words}")


def _verify_results(root: Path, name: str) -> None:
    """Print what is wrong with the results. Raises UserError where anything is."""
    from acll.data.root import data_root
    from acll.sharing.leftovers import unnamed
    from acll.sharing.repair import verified
    from acll.sharing.report import faults_counted, faults_told

    where, configuration = f"results/{name}", load_configuration(root / "config" / f"{name}.yaml")
    if not any((root / where).glob("[!.]*")):
        raise UserError(
            f"{where}: nothing is there; `{make_command('pull', name)}` or "
            f"`{make_command('run', name)}` brings it"
        )
    jobs, faults, kept = verified(root, name)
    outputs = sum(len(job.all_outputs) for job in jobs)
    for line in faults_told(faults):
        print(line)
    others = unnamed(root / where, jobs)
    loose = sum(len(group.files) for group in others.leftovers)
    if loose:
        print(
            f"{loose} files belong to nothing that the configuration names: "
            f"see `{make_command('leftovers', name)}`"
        )
    for line in faults_told(kept):
        print(line)
    _tell_foreign(where, others.foreign)
    tell_not_here(configuration, root / data_root(configuration.data_root), root / where)
    if faults:
        raise UserError(
            f"{where}: {faults_counted(faults, outputs)}\n{_remedy(faults, root, name)}"
        )
    accepted = f"`{make_command('accept', name)}`"
    but = f", but for {len(kept)} that are kept ({accepted})" if kept else ""
    print(f"{where}: {outputs} results, all as this commit would make them{but}")


def _remedy(faults: "Sequence[ResultFault]", root: Path, name: str) -> str:
    """Return what to type against these faults."""
    from acll.sharing.place import dvc_of

    kinds = {fault.kind for fault in faults}
    makes = f"`{make_command('run', name)}` makes"
    if kinds <= {"stale", "follows"}:
        return (
            f"{makes} them anew; after a change of branch "
            f"`{dvc_of(root)} checkout run@{name}` may have them; `{make_command('accept', name)}` "
            "keeps those that are stale by code or libraries alone"
        )
    if kinds <= {"unfinished", "stale", "follows"}:
        return f"{makes} what has not been made"
    repairs = f"`{make_command('repair', name)}`"
    if kinds <= {"missing", "unfinished", "stale", "follows"}:
        return f"{makes} what has not been made; {repairs} brings back first what DVC has"
    return f"{repairs} mends this"


def _tell_foreign(where: str, files: Sequence[Path]) -> None:
    """Print which files among the results no run has made. where: the results."""
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        print(
            f"made by no run, but versioned and shared with {where}: "
            f"{', '.join(map(str, files[:3]))}{more}"
        )


def accept(path: Path) -> None:
    """Keep results that are stale by nothing but their code and libraries.

    Raises UserError where others are not as this commit would make them.
    """
    from acll.lock import held
    from acll.sharing.accept import accept_results
    from acll.sharing.planned import jobs_of
    from acll.sharing.stages import add_stage
    from acll.sharing.transfer import record

    root, name = checkout_of(path)
    results = root / "results" / name
    with held(results):
        kept = accept_results(results, jobs_of(root, name))
        if kept:
            add_stage(root / "dvc.yaml", name)
            record(root, name)
    print(f"results/{name}: {len(kept)} results made with other code or libraries are kept now")
    _verify_results(root, name)


def repair(path: Path) -> None:
    """Put back, or make again, results that are damaged or missing."""
    from acll.sharing.planned import jobs_of
    from acll.sharing.repair import repair_results

    root, name = checkout_of(path)
    brought, again = repair_results(root, name, jobs_of(root, name))
    print(f"results/{name}: {brought} files put back as they were, {again} results made again")


def share(path: Path) -> None:
    """Verify results, commit them to DVC and push them."""
    from acll.lock import held
    from acll.sharing.transfer import push, record, recorded_bytes, require_remote

    root, name = checkout_of(path)
    require_remote(root)
    with held(root / "results" / name):
        _verify_results(root, name)
        record(root, name)
    size = recorded_bytes(root, name) / 1e6
    print(f"results/{name}: {size:,.1f} MB; what the remote does not have is pushed", flush=True)
    unknown = push(root, name)
    if unknown:
        print(f"not in git yet, and needed by whoever pulls these results: {', '.join(unknown)}")
        print("`git add` and `git commit` them, then `git push`")
    else:
        print("shared; `git push` tells your colleagues")


def pull(path: Path, what: str) -> None:
    """Bring shared results and verify them.

    what: `all`, or `tables` for tables, figures and scores alone, beside the results.
    """
    from acll.sharing.given import load_opened
    from acll.sharing.short_names import link_networks
    from acll.sharing.transfer import pull_results, pull_tables, require_remote

    root, name = checkout_of(path)
    require_remote(root)
    if what == "tables":
        folder, files = pull_tables(root, name)
        shown = folder.relative_to(root)
        print(
            f"{files} files: {shown}/tables, {shown}/figures and the scores, choices and trials "
            "of each network"
        )
        pull = make_command("pull", name)
        print(f"the networks themselves, to go on from them: `{pull}`")
        print(f"report: {write_report_of(root, name, folder).relative_to(root)}")
        return
    results = root / "results" / name
    pull_results(root, name)
    link_networks(results, load_opened(root / "config" / f"{name}.yaml"))
    _verify_results(root, name)
    print(f"report: {write_report_of(root, name, results).relative_to(root)}")


def list_leftovers(path: Path) -> None:
    """List results that the configuration does not name."""
    from acll.sharing.leftovers import unnamed
    from acll.sharing.planned import jobs_of
    from acll.sharing.report import leftovers_told

    root, name = checkout_of(path)
    _tell_in_use(root, name, "what it writes now may be listed")
    others = unnamed(root / "results" / name, jobs_of(root, name))
    found = others.leftovers
    _tell_foreign(f"results/{name}", others.foreign)
    for line in leftovers_told(found):
        print(line)
    if found:
        print(
            f"the configuration does not name these; `{make_command('prune-results', name)}` "
            "removes them"
        )
    else:
        print(f"results/{name}: runs have left nothing but what the configuration names")


def prune_results(path: Path) -> None:
    """Remove results that the configuration does not name."""
    from acll.lock import held
    from acll.sharing.given import load_opened
    from acll.sharing.leftovers import remove, unnamed
    from acll.sharing.planned import jobs_of
    from acll.sharing.report import leftovers_told
    from acll.sharing.short_names import link_networks

    root, name = checkout_of(path)
    results = root / "results" / name
    with held(results):
        found = unnamed(results, jobs_of(root, name)).leftovers
        remove(results, found)
        link_networks(results, load_opened(root / "config" / f"{name}.yaml"))
    for line in leftovers_told(found):
        print(f"removed  {line}")
    count = sum(len(group.files) for group in found)
    stays = "; what was shared before stays in DVC's cache and remote" if found else ""
    print(f"results/{name}: {count} files removed{stays}")
