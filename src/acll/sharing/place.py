"""Where a checkout and its results may lie."""

from pathlib import Path

from acll.errors import UserError, quoted

# `:` separates folders in PATH, braces are fields of texts in DVC, and a name is one line
_ODD = ":{}\n"


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
    for path in (root / "results", root / "results" / name):
        if path.is_symlink():
            where = path.relative_to(root)
            raise UserError(
                f"{where}: is a link, and DVC records nothing behind links. Put a folder in its "
                f"place (`rm {where}`), and clone the checkout onto the disk with more room, or "
                "keep DVC's copies there: `.venv/bin/dvc cache dir --local /large/disk/cache`"
            )
