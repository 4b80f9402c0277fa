"""Results from and to the DVC cache and remote: share, pull, look, restore. Thin: DVC does the work."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from acll.errors import UserError
from acll.files import sha256, write_json, written
from acll.lock import alive, held
from acll.sharing import records

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

LOOKED_AT = ("tables", "figures")  # folders, and below the nodes:
LOOKED_AT_FILES = ("scores.json", "choice.json", "trials.csv")
# not only what DVC takes along: whatever this commit's results depend on
SOURCES = ("Snakefile", "workflow", "src", "profiles", "dvc.yaml", ".dvcignore", ".dvc/config")
NO_REMOTE = """no DVC remote is set, so there is no place to share results. Type one of
  .venv/bin/dvc remote add --default store /a/folder/that/colleagues/see
  .venv/bin/dvc remote add --default store ssh://user@host/path
  .venv/bin/dvc remote add --default store s3://bucket/path
  and then `git commit .dvc/config`, so that colleagues have it too"""


def require_remote(root: Path) -> None:
    """Raise UserError, with what to type, where no default remote is set."""
    command = ["dvc", "config", "core.remote"]
    if not subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip():
        raise UserError(NO_REMOTE)


def knows(root: Path, name: str) -> bool:
    """Whether dvc.lock names results of this configuration."""
    import yaml

    path = root / "dvc.lock"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return f"run@{name}" in content.get("stages", {})


def forget_ended(root: Path) -> None:
    """Take processes that have ended out of DVC's list of who works on what; it does so itself but for zombies."""
    path = root / ".dvc/tmp/rwlock"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    writers = {place: entry for place, entry in listed.get("write", {}).items() if alive(entry["pid"])}
    readers = {
        place: [entry for entry in entries if alive(entry["pid"])] for place, entries in listed.get("read", {}).items()
    }
    left = listed | {"write": writers, "read": {place: entries for place, entries in readers.items() if entries}}
    if left != listed:
        write_json(path, left)


def share(root: Path, name: str) -> list[str]:
    """Commit the results to DVC and push them. Returns the files that git does not know yet in this form.

    Raises UserError, BusyError.
    """
    with held(root / "results" / name):
        _dvc(root, "commit", "--quiet", "--force", f"run@{name}")
    _dvc(root, "push", f"run@{name}")
    return _not_in_git(root, ["dvc.lock", f"config/{name}.yaml", *SOURCES])


def pull(root: Path, name: str) -> None:
    """Bring all results of a configuration, as dvc.lock names them. Raises UserError, BusyError."""
    if not knows(root, name):
        raise UserError(
            f"dvc.lock: knows no results of {name!r}; has a colleague shared them, and is this commit new enough "
            "(`git pull`)?"
        )
    results = root / "results" / name
    with held(results):
        _dvc(root, "fetch", f"run@{name}")
        try:
            _dvc(root, "checkout", f"run@{name}")
        except UserError as error:
            raise UserError(
                f"{error}\nif files were damaged, `make repair CONFIG={name}` puts them right; if a run made them and "
                f"nobody shared them, `make share CONFIG={name}` keeps them and "
                f"`.venv/bin/dvc checkout --force run@{name}` discards them"
            ) from None
        # what was begun here has given way to what was pulled; without the folder Snakemake would think itself updated
        shutil.rmtree(results / records.INCOMPLETE, ignore_errors=True)
        (results / records.INCOMPLETE).mkdir(parents=True)


def look(root: Path, name: str) -> tuple[Path, int]:
    """Bring tables, figures and scores alone, as HEAD's dvc.lock names them: (where they are, how many files).

    They go beside the results: a part of them in their own place would pass for the whole, and the next run would
    record the rest as gone. Raises UserError.
    """
    from dvc.api import DVCFileSystem

    own = f"results/{name}"
    place = root / "results" / f"{name}-tables"
    try:
        shared = DVCFileSystem(str(root), rev="HEAD")
        files = [path for path in shared.find(own) if _is_looked_at(path.removeprefix(f"{own}/"))]
        for file in files:
            with written(place / file.removeprefix(f"{own}/")) as beside:
                shared.get_file(file, str(beside))
    except Exception as error:
        raise UserError(f"{own}: cannot be brought: {error}") from None
    if not files:
        raise UserError(f"{own}: dvc.lock of the current commit knows no results of it; has a colleague shared them?")
    return place, len(files)


def restore(root: Path, name: str, digests: Mapping[str, str]) -> set[str]:
    """Put back outputs from the DVC cache or remote, as far as they are there with these digests.

    digests: path below the results → SHA-256; what is there under these paths is removed. Returns what was put back.
    """
    results = root / "results" / name
    for output in digests:
        (results / output).unlink(missing_ok=True)
    return _fetch(root, name, lambda file: file in digests, digests)


def restore_records(root: Path, name: str) -> set[str]:
    """Put back records and digests that are gone, as far as DVC has them. Returns what was put back."""
    results = root / "results" / name
    folders = (f"{records.METADATA.as_posix()}/", f"{records.DIGESTS.as_posix()}/")
    return _fetch(root, name, lambda file: file.startswith(folders) and not (results / file).exists(), {})


def _fetch(root: Path, name: str, wanted: Callable[[str], bool], digests: Mapping[str, str]) -> set[str]:
    """Files below the results that DVC knows and that are wanted, each whole and with its digest or not at all.

    A file that is neither in the cache nor in a remote that can be reached is left out: it will be made again.
    """
    from dvc.api import DVCFileSystem

    own = f"results/{name}"
    brought: set[str] = set()
    with contextlib.suppress(Exception):  # what is raised depends on the kind of remote
        known = DVCFileSystem(str(root))
        for path in known.find(own, dvc_only=True):
            file = path.removeprefix(f"{own}/")
            if wanted(file) and _bring(known, path, root / path, digests.get(file)):
                brought.add(file)
    return brought


def _bring(source: "DVCFileSystem", path: str, place: Path, digest: str | None) -> bool:
    """Whether a file could be written to `place`, with this digest where one is given."""
    try:
        with written(place) as beside:
            source.get_file(path, str(beside))
            if digest is not None and sha256(beside) != digest:
                raise FileNotFoundError(f"{path}: another version")
    except Exception:
        return False
    return True


def _is_looked_at(file: str) -> bool:
    return file.startswith(tuple(f"{folder}/" for folder in LOOKED_AT)) or file.endswith(LOOKED_AT_FILES)


def _not_in_git(root: Path, paths: Sequence[str]) -> list[str]:
    command = ["git", "status", "--porcelain", "--", *paths]
    lines = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.splitlines()
    return [line[3:] for line in lines]


def _dvc(root: Path, *arguments: str) -> None:
    """Run dvc with its output where ours goes. Raises UserError where it fails."""
    if subprocess.run(["dvc", *arguments], cwd=root, check=False).returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` has failed, see above")
