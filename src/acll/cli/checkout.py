"""The checkout that a configuration belongs to, and what of its data is not here."""

import os
from pathlib import Path

from acll.config.checks import load_configuration
from acll.config.configuration import Configuration
from acll.data.root import ROOT_KEY
from acll.errors import UserError


def checkout_of(path: Path) -> tuple[Path, str]:
    """Return (the root of the checkout that a configuration belongs to, its name).

    path: of the configuration, `<root>/config/<name>.yaml`. Where the file or `config` is a link,
    the checkout is that of the link. Raises UserError where the configuration is not sound, where
    results cannot lie in this checkout, or where a merge has left conflicts in the files of DVC.
    """
    from acll.extras import require_extra
    from acll.sharing.place import refuse_place
    from acll.sharing.stages import refuse_conflicts

    require_extra("pipeline")
    # links above are followed, as DVC does; those of the last two parts lead into other checkouts
    root = path.absolute().parent.parent.resolve()
    refuse_conflicts(root)
    name = load_configuration(path).name
    refuse_place(root, name)
    return root, name


def refuse_elsewhere(path: Path) -> None:
    """Raise UserError for a configuration that cannot be run, since it lies in no `config`."""
    if path.absolute().parent.name != "config":
        where = "config/<name>.yaml"
        raise UserError(
            f"{path}: a configuration lies in the folder config of its checkout: {where}"
        )


def tell_not_here(configuration: Configuration, data_root: Path, results: Path) -> bool:
    """Print which raw data and weights are not here and are known from records of results alone.

    Return whether there are any.
    """
    from acll.sharing.raw import not_here

    absent = ", ".join(not_here(configuration, data_root, results))
    if absent and not data_root.is_dir():
        print(f"warning: {data_root}: there is no such folder (data_root, or DATA=…)")
    if absent:
        warning = "warning: " if ROOT_KEY in os.environ else ""  # a folder that somebody has named
        taken = "taken to be what they were when they were read"
        print(f"{warning}not in {data_root}, so {taken}: {absent}")
    return bool(absent)
