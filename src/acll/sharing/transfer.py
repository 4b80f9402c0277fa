"""Results from and to the DVC cache and remote.

DVC does the work.
"""

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acll.errors import UserError
from acll.files import saying_where, sha256, unfinished_path, written
from acll.lock import held
from acll.run_summary import make_command
from acll.sharing import records
from acll.sharing.place import dvc_of

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

# what `pull_tables` brings: these folders, and these files of nodes
TABLE_FOLDERS = ("tables", "figures")
TABLE_FILES = ("scores.json", "choice.json", "trials.csv")
# all that the results of a commit depend on, whether DVC keeps it or git alone
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
  {dvc} remote add --default store /a/folder/that/colleagues/see
  {dvc} remote add --default store ssh://user@host/path
  {dvc} remote add --default store s3://bucket/path
  and then `git commit .dvc/config`, so that colleagues have it too"""


def require_repository(root: Path) -> None:
    """Raise UserError, with what to type, where DVC could not record results here."""
    if not (root / ".git").exists():
        raise UserError(f"{root}: is no git repository, which DVC needs; `git init` makes it one")
    _changed(root, "dvc.yaml")  # says what hinders git
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root}: DVC is not set up; `git checkout .dvc` or `dvc init` does that")
    for name in ("dvc.yaml", "dvc.lock"):
        if (root / name).exists() and not os.access(root / name, os.W_OK):
            raise UserError(f"{root / name}: cannot be written, so results could not be recorded")


def require_remote(root: Path) -> None:
    """Raise UserError, with what to type, where no default remote is set."""
    if not has_remote(root):
        raise UserError(NO_REMOTE.format(dvc=dvc_of(root)))


def has_remote(root: Path) -> bool:
    """Return whether a default remote is set."""
    return "core.remote" in _settings(root)


def missing_folder(root: Path) -> Path | None:
    """Return the default remote if it is a folder that is not there, such as one not mounted."""
    settings = _settings(root)
    url = settings.get(f"remote.{settings.get('core.remote')}.url")
    if url is None or "://" in url:
        return None
    folder = root / ".dvc" / url  # as DVC does, where it is not absolute
    return None if folder.is_dir() else folder


def _settings(root: Path) -> dict[str, str]:
    """Return the settings of DVC that are set, by the names that `dvc config` has for them."""
    from dvc.config import Config, ConfigError
    from dvc.utils.flatten import flatten

    try:
        return dict(flatten(Config(str(root / ".dvc"), validate=False)))
    except ConfigError as error:
        raise UserError(f"{root}: the settings of DVC cannot be read: {error}") from None


def _changed(root: Path, *paths: str) -> list[str]:
    """Return which files git does not know as they are.

    paths: files, which are compared by content, whatever git is told to ignore or to take for
    unchanged; and folders, of which files that git ignores are left out.
    """
    status = ["git", "status", "--porcelain", "--untracked-files=all", "--", *paths]
    # two letters and a space say what has happened to a file
    changed = {line[3:] for line in _printed(root, *status).splitlines()}
    files = [path for path in paths if (root / path).is_file()]
    if not files:
        return sorted(changed)
    known = {}
    for line in _printed(root, "git", "ls-files", "--stage", "-z", "--", *files).split("\0")[:-1]:
        about, _, path = line.partition("\t")  # mode, hash and stage
        known[path] = about.split()[1]
    hashes = _printed(root, "git", "hash-object", "--", *files).split()
    changed |= {path for path, own in zip(files, hashes, strict=True) if known.get(path) != own}
    return sorted(changed)


def _printed(root: Path, *command: str) -> str:
    """Return what a command prints. Raises UserError, with what it says, where it fails."""
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        said = result.stderr.strip() or f"exit code {result.returncode}"
        lines = "\n".join(f"  {line}" for line in said.splitlines())
        raise UserError(f"{root}: `{' '.join(command)}` has failed:\n{lines}")
    return result.stdout


def knows(root: Path, name: str) -> bool:
    """Return whether dvc.lock names results of this configuration."""
    return bool(_recorded(root, name))


def recorded_bytes(root: Path, name: str) -> int:
    """Return how many bytes the results have that dvc.lock names."""
    return sum(output.get("size", 0) for output in _recorded(root, name).get("outs", ()))


def _recorded(root: Path, name: str) -> dict[str, Any]:
    """Return what dvc.lock says of a configuration; nothing where it does not name it."""
    import yaml

    path = root / "dvc.lock"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return (content or {}).get("stages", {}).get(f"run@{name}") or {}


def load_dvc(root: Path) -> None:
    """Open DVC's repository once, which imports what `record` needs and takes as long as planning.

    If that cannot be, `record` says why.
    """
    with suppress(Exception):
        from dvc.repo import Repo

        Repo(str(root)).close()


def record(root: Path, name: str) -> None:
    """Take the results as they are into the DVC cache and dvc.lock, as `dvc commit` does.

    Runs of other configurations in the same checkout may be doing the same: they take turns. Raises
    UserError.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    require_repository(root)
    logging.getLogger("dvc").setLevel(logging.WARNING)  # not what it did, only what went wrong
    deadline = time.monotonic() + DVC_PATIENCE
    while True:
        try:
            with saying_where(root / ".dvc/cache"), Repo(str(root)) as repo:
                # by force: without asking whether the changes are meant
                repo.commit(f"{root / 'dvc.yaml'}:run@{name}", force=True)
            return
        except LockError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"another DVC command is at work here: {error}; `make run` goes on after it"
                ) from None
            time.sleep(1)
        except DvcException as error:
            raise UserError(f"results/{name}: DVC could not record them: {error}") from None


def push(root: Path, name: str) -> list[str]:
    """Push the results that DVC has recorded.

    DVC makes a remote folder that is not there; that is said. Return the files that git does not
    know yet as they are. Raises UserError.
    """
    gone = missing_folder(root)
    if gone is not None:
        print(f"the remote {gone} is not there; DVC makes it now (was it to be mounted?)")
    _dvc(root, "push", f"run@{name}")
    return _changed(root, "dvc.lock", f"config/{name}.yaml", *DEPENDED_ON)


def pull_results(root: Path, name: str) -> None:
    """Bring all results of a configuration, as dvc.lock names them. Raises UserError."""
    if not knows(root, name):
        raise UserError(
            f"dvc.lock: knows no results of {name!r}; has a colleague shared them, and is this "
            "commit new enough (`git pull`)?"
        )
    require_repository(root)
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
                f"{error}\nif the remote lacks them, whoever made them has to "
                f"`{make_command('share', name)}`; if files here were damaged, "
                f"`{make_command('repair', name)}` puts them right; if a run made them and nobody "
                f"shared them, `{make_command('share', name)}` keeps them and "
                f"`{dvc_of(root)} checkout --force run@{name}` discards them"
            ) from None
        # What was begun here has been replaced. The folder has to be there: without it Snakemake
        # takes the results for those of an older version of itself.
        shutil.rmtree(results / records.INCOMPLETE, ignore_errors=True)
        (results / records.INCOMPLETE).mkdir(parents=True)


def pull_tables(root: Path, name: str) -> tuple[Path, int]:
    """Bring tables, figures and scores alone, as HEAD's dvc.lock names them.

    Return (their folder, how many files). They go beside the results: among them a part would pass
    for the whole, and the next run would record the rest as gone. They replace what was brought
    before. Raises UserError.
    """
    from dvc.api import DVCFileSystem

    own = f"results/{name}"
    folder = root / "results" / f"{name}-tables"
    beside = unfinished_path(folder)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        shared = DVCFileSystem(str(root), rev="HEAD")
        files = [file for file in _listed(shared, own) if _is_table(file)]
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
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder, len(files)


def restore_files(root: Path, name: str, wanted: Mapping[str, str | None]) -> set[str]:
    """Put back files from the DVC cache or remote; return which.

    wanted: path below the results → SHA-256 that it must have, or None for any. A file that DVC
    does not have, or only in another version, stays as it is. Raises UserError where the remote
    cannot be asked: otherwise what it has would be made again, maybe for days.
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
    """Shared results name a file that would lie outside of their folder."""


def _listed(source: "DVCFileSystem", own: str) -> list[str]:
    """Return the files that DVC knows below the folder `own`, by their names in it, sorted.

    The names come from a remote, to which others write. Raises OddNameError where one leads out of
    its folder, here or on another system. A folder is opened only after its name was checked.
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


def _bring(source: "DVCFileSystem", path: str, target: Path, digest: str | None) -> bool:
    """Write a file to `target`; return False where DVC does not have it.

    digest: SHA-256 that it must have; None: any.
    """
    # the file that is there must give way: DVC would take its content for that of the cache
    aside = target.with_name(f".{target.name}.damaged")
    if target.exists():
        target.rename(aside)
    try:
        with written(target) as beside:
            source.get_file(path, str(beside))
            if digest is not None and sha256(beside) != digest:
                raise FileNotFoundError(f"{path}: another version")
    except Exception as error:  # what is raised depends on the kind of remote
        if not _is_absence(error):
            raise
        return False
    finally:
        if aside.exists() and not target.exists():
            aside.rename(target)
        aside.unlink(missing_ok=True)
    return True


def _is_absence(error: Exception) -> bool:
    """Return whether an error says that a file is not there; False where the remote failed."""
    return isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError)


def _is_table(file: str) -> bool:
    return file.split("/")[0] in TABLE_FOLDERS or file.endswith(TABLE_FILES)


def _dvc(root: Path, *arguments: str) -> None:
    """Run dvc, which prints where this process does. Raises UserError where it fails."""
    if subprocess.run(["dvc", *arguments], cwd=root, check=False).returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` has failed, see above")
