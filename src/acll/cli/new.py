"""`acll new`: lay out a project of one's own, which runs with the installed package."""

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

from acll.errors import UserError
from acll.files import unfinished_path, write_text

NAME = "mine"  # of the configuration
# file of the project → what it is made from, beside this module
_FILES = {
    f"config/{NAME}.yaml": "configuration.yaml",
    "Makefile": "Makefile",
    "dvc.yaml": "dvc.yaml",
    ".gitignore": "gitignore",
    ".dvcignore": "dvcignore",
    ".dvc/config": "dvc_config",
    ".dvc/.gitignore": "dvc_gitignore",
}


def new(path: Path) -> None:
    """Lay out a project in a folder that is not there, or empty, and make it a git repository.

    Raises UserError where that cannot be; then nothing has been written.
    """
    from acll.extras import require_extra
    from acll.sharing.place import refuse_place

    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise UserError(f"{path}: is there already; name a new folder, or one that is empty")
    refuse_place(path.absolute(), NAME)
    if shutil.which("git") is None:
        raise UserError("git: is not installed, and results are versioned with it")
    beside = unfinished_path(path.absolute())
    shutil.rmtree(beside, ignore_errors=True)
    try:
        _write(beside)
        beside.rename(path.absolute())
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    print(f"{path}/config/{NAME}.yaml: what is learned; it runs as it is, and has comments")
    print(f"{path}/Makefile: `make run` runs it, `make help` lists the rest")
    try:
        require_extra("pipeline")
    except ModuleNotFoundError:
        print('runs need more than is installed: type `pip install "acll[pipeline]"`')


def _write(folder: Path) -> None:
    """Write the files of a project, and make its folder a repository."""
    from acll.sharing.place import snakefile_of

    templates = files("acll.cli").joinpath("project")
    for name, template in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, templates.joinpath(template).read_text(encoding="utf-8"))
    profile = "profiles/slurm/config.yaml"
    (folder / profile).parent.mkdir(parents=True)
    shutil.copyfile(snakefile_of(folder).parent / profile, folder / profile)
    git = ["git", "init", "--quiet", "--initial-branch", "main", "."]
    made = subprocess.run(git, cwd=folder, capture_output=True, text=True, check=False)
    if made.returncode:
        raise UserError(f"`git init` has failed: {made.stderr.strip()}")
