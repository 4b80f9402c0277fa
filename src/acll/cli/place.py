"""Where a configuration belongs, and what of it is not here."""

from pathlib import Path

from acll.config.checks import load_configuration
from acll.config.configuration import Configuration


def checkout_of(path: Path) -> tuple[Path, str]:
    """The checkout that a configuration belongs to, and its name.

    Raises UserError where the configuration is not sound, or a merge has left conflicts in the
    files of DVC.
    """
    from acll.sharing.stages import refuse_conflicts

    root = path.resolve().parent.parent
    refuse_conflicts(root)
    return root, load_configuration(path).name


def tell_not_here(configuration: Configuration, root: Path, results: Path) -> None:
    """Say what is known from records alone."""
    from acll.sharing.raw import not_here

    absent = not_here(configuration, root, results)
    if absent:
        print(
            f"not in {root}, so taken to be what they were when they were read: {', '.join(absent)}"
        )
