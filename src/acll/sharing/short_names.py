"""Short names of the networks that runs end with: links in `networks/`, below the results.

They lie outside of what DVC looks at (`.dvcignore`): it would take the file behind a link for a
file of its own, and bring it back as a copy.
"""

import os
from pathlib import Path

from acll.config import tree
from acll.config.configuration import Configuration
from acll.node import Node

NETWORKS = Path("networks")


def short_names(configuration: Configuration) -> dict[str, Node]:
    """Return the nodes that runs end with, by name: `<sequence>-<method>-seed<n>`.

    configuration: its packed networks must have been opened.

    Where these are several (one for each order of the tasks, or for each task), the tasks that a
    network has learned are added.
    """
    ends: dict[str, dict[Node, None]] = {}  # sets that keep their order
    for run in tree.runs(configuration):
        name = f"{run.sequence}-{run.method}-seed{run.seed}"
        ends.setdefault(name, {}).update(dict.fromkeys(run.nodes(len(run.tasks))))
    return {
        name if len(nodes) == 1 else f"{name}-{node.word}": node
        for name, nodes in ends.items()
        for node in nodes
    }


def link_networks(results: Path, configuration: Configuration) -> list[Path]:
    """Link the networks that are there by their short names; return the links, below the results.

    Links that lead elsewhere are replaced, and those that nothing belongs to are removed. Files
    that are no links are left alone. configuration: as of `short_names`.
    """
    folder = results / NETWORKS
    wanted = {}
    for name, node in short_names(configuration).items():
        target = Path(node.folder) / "network.safetensors"
        if (results / target).is_file():
            wanted[NETWORKS / f"{name}.safetensors"] = Path("..") / target
    for path in folder.glob("*"):
        if path.is_symlink() and wanted.get(NETWORKS / path.name) != path.readlink():
            path.unlink()
    for link, target in wanted.items():
        folder.mkdir(exist_ok=True)
        if not os.path.lexists(results / link):
            (results / link).symlink_to(target)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return list(wanted)
