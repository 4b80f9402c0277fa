"""Results from and to the DVC cache and remote: share, pull, look, restore.

Thin: DVC does the work.
"""

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from acll.errors import UserError
from acll.files import sha256, written
from acll.lock import held
from acll.sharing import records

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

LOOKED_AT = ("tables", "figures")  # folders, and below the nodes:
LOOKED_AT_FILES = ("scores.json", "choice.json", "trials.csv")
# not only what DVC takes along: whatever this commit's results depend on
DEPENDED_ON = (
    "Snakefile",
    "workflow",
    "src",
    "profiles",
    "requirements",
    "dvc.yaml",
    ".dvcignore",
    ".dvc/config",
)
DVC_PATIENCE = 600  # seconds to wait for other DVC commands
NO_REMOTE = """no DVC remote is set, so there is no place to share results. Type one of
  .venv/bin/dvc remote add --default store /a/folder/that/colleagues/see
  .venv/bin/dvc remote add --default store ssh://user@host/path
  .venv/bin/dvc remote add --default store s3://bucket/path
  and then `git commit .dvc/config`, so that colleagues have it too"""


def require_remote(root: Path) -> None:
    """Raise UserError, with what to type, where no default remote is set."""
    if not has_remote(root):
        raise UserError(NO_REMOTE)


def has_remote(root: Path) -> bool:
    """Whether a default remote is set."""
    return bool(_setting(root, "core.remote"))


def missing_folder(root: Path) -> Path | None:
    """The default remote where that is a folder which is not there, as one that is not mounted."""
    name = _setting(root, "core.remote")
    url = _setting(root, f"remote.{name}.url") if name else ""
    if not url or "://" in url:
        return None
    folder = root / ".dvc" / url  # as DVC does, where it is not absolute
    return None if folder.is_dir() else folder


def _setting(root: Path, key: str) -> str:
    command = ["dvc", "config", key]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()


def knows(root: Path, name: str) -> bool:
    """Whether dvc.lock names results of this configuration."""
    import yaml

    path = root / "dvc.lock"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return f"run@{name}" in (content or {}).get("stages", {})


def record(root: Path, name: str) -> None:
    """Take the results into the DVC cache and dvc.lock, as they are: what `dvc commit` does.

    Raises UserError.

    Runs of other configurations in the same checkout may be doing the same: they take turns.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    deadline = time.monotonic() + DVC_PATIENCE
    while True:
        try:
            with Repo(str(root)) as repo:
                repo.commit(
                    f"run@{name}", force=True
                )  # without asking whether what has changed is meant
            return
        except LockError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"another DVC command is at work here: {error}; `make run` goes on after it"
                ) from None
        except DvcException as error:
            raise UserError(f"results/{name}: DVC could not record them: {error}") from None


def push(root: Path, name: str) -> list[str]:
    """Push the committed results.

    Returns the files that git does not know yet in this form. Raises UserError.
    """
    _dvc(root, "push", f"run@{name}")
    command = [
        "git",
        "status",
        "--porcelain",
        "--",
        "dvc.lock",
        f"config/{name}.yaml",
        *DEPENDED_ON,
    ]
    lines = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    return [line[3:] for line in lines]


def pull_results(root: Path, name: str) -> None:
    """Bring all results of a configuration, as dvc.lock names them. Raises UserError."""
    if not knows(root, name):
        raise UserError(
            f"dvc.lock: knows no results of {name!r}; has a colleague shared them, and is this "
            "commit new enough "
            "(`git pull`)?"
        )
    gone = missing_folder(root)
    if gone is not None:
        raise UserError(f"the remote {gone} is not there; is it mounted?")
    from dvc.api import DVCFileSystem

    results = root / "results" / name
    with held(results):
        _dvc(root, "fetch", f"run@{name}")
        try:
            # DVC would write what is named, wherever that is
            _listed(DVCFileSystem(str(root)), f"results/{name}")
            _dvc(root, "checkout", f"run@{name}")
        except OddNameError:
            raise
        except Exception as error:  # what is raised depends on the kind of remote
            raise UserError(
                f"{error}\nif the remote lacks them, whoever made them has to `make share "
                f"CONFIG={name}`; "
                f"if files here were damaged, `make repair CONFIG={name}` puts them right; if "
                "a run made them and "
                f"nobody shared them, `make share CONFIG={name}` keeps them and "
                f"`.venv/bin/dvc checkout --force run@{name}` discards them"
            ) from None
        # what was begun here has given way to what was pulled; without the folder Snakemake would
        # think itself updated
        shutil.rmtree(results / records.INCOMPLETE, ignore_errors=True)
        (results / records.INCOMPLETE).mkdir(parents=True)


def look(root: Path, name: str) -> tuple[Path, int]:
    """Bring tables, figures and scores alone, as HEAD's dvc.lock names them: (where they are, how
    many files).

    They go beside the results: a part of them in their own place would pass for the whole, and the
    next run would record the rest as gone. They replace what was looked at before. Raises
    UserError.
    """
    from dvc.api import DVCFileSystem

    own = f"results/{name}"
    place = root / "results" / f"{name}-tables"
    beside = place.with_name(f".{place.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shared = DVCFileSystem(str(root), rev="HEAD")
        files = [file for file in _listed(shared, own) if _is_looked_at(file)]
        for file in files:
            to = beside / file
            to.parent.mkdir(parents=True, exist_ok=True)
            shared.get_file(f"{own}/{file}", str(to))
    except OddNameError:
        raise
    except Exception as error:  # what is raised depends on the kind of remote
        shutil.rmtree(beside, ignore_errors=True)
        raise UserError(f"{own}: cannot be brought: {error}") from None
    if not files:
        raise UserError(
            f"{own}: dvc.lock of the current commit knows no results of it; has a colleague "
            "shared them?"
        )
    shutil.rmtree(place, ignore_errors=True)
    beside.rename(place)
    return place, len(files)


def restore_files(root: Path, name: str, wanted: Mapping[str, str | None]) -> set[str]:
    """Put back files from the DVC cache or remote.

    Returns what was put back; the others are as they were.

    wanted: path below the results → SHA-256 that it must have, or None. A file that DVC does not
    have, or only in another version, is left out. Raises UserError where the remote cannot be
    asked: what it has would else be made again, maybe for days.
    """
    from dvc.api import DVCFileSystem

    own = f"results/{name}"
    brought = set()
    try:
        source = DVCFileSystem(str(root))
        for file in _listed(source, own) if wanted else []:
            path = f"{own}/{file}"
            if file in wanted and _bring(source, path, root / path, wanted[file]):
                brought.add(file)
    except OddNameError:
        raise
    except Exception as error:  # what is raised depends on the kind of remote
        if not _is_absence(error):
            raise UserError(
                f"DVC cannot say whether it has these results: {error}; mend that first"
            ) from None
    return brought


class OddNameError(UserError):
    """What others have shared names a file that would not lie where it belongs."""


def _listed(source: "DVCFileSystem", own: str) -> list[str]:
    """The files that DVC knows below a folder, by their names in it, sorted.

    The names come from a remote, to which others write. Raises OddNameError where one leads out of
    its folder, here or on another system. Folders are looked into only after their names have been.
    """
    found: list[str] = []
    for folder, folders, files in source.walk(own, dvc_only=True) if source.exists(own) else ():
        for name in (*folders, *files):
            if name in ("", ".", "..") or any(letter in name for letter in "/\\\0"):
                raise OddNameError(
                    f"{folder}: what has been shared names {name!r} there, which is no name of a "
                    "file or folder; nothing was written; whoever shared it has to look into it"
                )
        found += [f"{folder}/{name}".removeprefix(f"{own}/") for name in files]
    return sorted(found)


def _bring(source: "DVCFileSystem", path: str, place: Path, digest: str | None) -> bool:
    """Whether a file could be written to `place`, with this digest where one is given."""
    aside = place.with_name(f".{place.name}.damaged")  # DVC would read what is in the place itself
    if place.exists():
        place.rename(aside)
    try:
        with written(place) as beside:
            source.get_file(path, str(beside))
            if digest is not None and sha256(beside) != digest:
                raise FileNotFoundError(f"{path}: another version")
    except Exception as error:  # what is raised depends on the kind of remote
        if not _is_absence(error):
            raise
        return False
    finally:
        if aside.exists() and not place.exists():
            aside.rename(place)
        aside.unlink(missing_ok=True)
    return True


def _is_absence(error: Exception) -> bool:
    """Whether an error says that something is not there, rather than that nobody could look."""
    return isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError)


def _is_looked_at(file: str) -> bool:
    return file.startswith(tuple(f"{folder}/" for folder in LOOKED_AT)) or file.endswith(
        LOOKED_AT_FILES
    )


def _dvc(root: Path, *arguments: str) -> None:
    """Run dvc with its output where ours goes. Raises UserError where it fails."""
    if subprocess.run(["dvc", *arguments], cwd=root, check=False).returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` has failed, see above")
