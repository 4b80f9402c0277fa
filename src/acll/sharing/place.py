"""Where a checkout and its results may lie, and where the rules of a run are."""

import os
from pathlib import Path

from acll.errors import UserError, quoted

# `:` separates folders in PATH, braces are fields of texts in DVC, which takes `\` for `/`, and a
# name is one line
_ODD = ":{}\\\n"


def refuse_place(root: Path, name: str) -> None:
    """Raise UserError, with what to do, where a run in this checkout could not be recorded.

    root: without links. name: of the configuration.
    """
    odd = [letter for letter in _ODD if letter in str(root)]
    if odd:
        raise UserError(
            f"{quoted(root)}: {quoted(', '.join(odd))} in the path of a checkout cannot be; "
            "rename or move the folder"
        )
    for path in (root / ".dvc", root / ".dvc/config"):
        if path.is_symlink():
            where = path.relative_to(root)
            raise UserError(
                f"{where}: is a link, and DVC takes what lies behind it for no part of the "
                "checkout. Put a copy in its place; only its cache may lie elsewhere: "
                f"`{dvc_of(root)} cache dir --local /large/disk/cache`"
            )
    results = root / "results" / name
    inside = (Path(at) / one for at, folders, _ in os.walk(results) for one in folders)
    for path in (results.parent, results, *inside):
        if path.is_symlink():
            where = path.relative_to(root)
            raise UserError(
                f"{where}: is a link, and DVC records nothing that lies behind one. Put a folder "
                f"in its place (`rm {where}`), and clone the checkout onto the disk with more "
                "room, or keep DVC's copies there: "
                f"`{dvc_of(root)} cache dir --local /large/disk/cache`"
            )


def dvc_of(root: Path) -> str:
    """Return what a person types in the folder `root` to run DVC.

    A checkout has an environment of its own, which need not be activated. Other projects may be run
    from one that is.
    """
    own = ".venv/bin/dvc"
    return own if (root / own).exists() else "dvc"


def snakefile_of(root: Path) -> Path:
    """Return the Snakefile by which configurations of the folder `root` are run.

    A checkout has its own. Other projects have that of the package: in an installed package it lies
    in a folder of it, in one that is edited at the top of its repository.
    """
    package = Path(__file__).resolve().parents[1]
    places = [root, package / "workflow", package.parents[1]]
    found = [place / "Snakefile" for place in places if (place / "Snakefile").is_file()]
    if not found:
        raise UserError(f"{package}: there is no Snakefile with it; install acll anew")
    return found[0]


def source_of(root: Path) -> Path:
    """Return the folder of the package that the Snakefile of the folder `root` belongs to.

    `workflow/rules/common.smk` finds it likewise, before it can import this.
    """
    base = snakefile_of(root).parent
    return base / "src" if (base / "src").is_dir() else base.parent.parent
