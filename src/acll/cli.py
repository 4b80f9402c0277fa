"""What a person types: `acll check`, `acll table`, `acll prove`, `acll inspect`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from acll.config import ConfigurationError, load
from acll.errors import UserError
from acll.settings import Configuration

EXAMPLES = """examples:
  acll check config/demo.yaml
  acll table results/demo
  acll prove results/demo
  acll inspect results/demo/nodes/small/adaptive/seed0/textures/digits/network.safetensors
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run a command. Errors of the user's end with their message and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="acll",
        description="Lifelong learning by adaptive compression.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check a configuration and its raw data, without running anything")
    check.add_argument("configuration", type=Path, help="config/<name>.yaml")
    check.add_argument("--stage", type=Path, metavar="DVC_YAML", help="check also that dvc.yaml has a stage for it")
    table = commands.add_parser("table", help="print the tables of a run")
    table.add_argument("results", type=Path, help="results/<name>")
    prove = commands.add_parser("prove", help="check in the packed files of a run that nothing was forgotten")
    prove.add_argument("results", type=Path, help="results/<name>")
    inspect = commands.add_parser("inspect", help="say what a packed network holds")
    inspect.add_argument("file", type=Path, help="a network.safetensors of a run")
    given = parser.parse_args(arguments)
    try:
        if given.command == "check":
            _check(given.configuration, given.stage)
        elif given.command == "table":
            _table(given.results)
        elif given.command == "prove":
            _prove(given.results)
        else:
            _inspect(given.file)
    except BrokenPipeError:  # `acll table … | head`
        sys.stdout = None
    except (UserError, OSError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


def _check(path: Path, stage: Path | None) -> None:
    from acll import tree
    from acll.data.folders import files_of
    from acll.data.root import data_root

    configuration = load(path)
    if stage is not None:
        _check_stage(configuration, stage)
    root = data_root(configuration.data_root)
    faults = [
        f"{path}: networks.{name}.weights = {network.weights!r}: there is no such file in {root}"
        for name, network in configuration.networks.items()
        if network.weights not in ("none", "imagenet") and not (root / network.weights).is_file()
    ]
    for name, task in configuration.tasks.items():
        if task.source in ("image_folder", "mask_folder"):
            try:
                files_of(task, root)
            except UserError as error:
                faults.append(f"{path}: tasks.{name}: {error}")
    if faults:
        raise ConfigurationError("\n".join(faults))
    nodes = len(tree.nodes(configuration))
    words = (
        f"{len(configuration.sequences)} sequences, {len(configuration.methods)} methods, "
        f"{len(configuration.seeds)} seeds: {nodes} networks"
    )
    print(f"{path}: sound; {words}")


def _check_stage(configuration: Configuration, stage: Path) -> None:
    import yaml

    names = yaml.safe_load(stage.read_text(encoding="utf-8"))["stages"]["run"]["foreach"]
    if configuration.name not in names:
        raise ConfigurationError(
            f"{stage}: has no stage for {configuration.name!r}; add the line `- {configuration.name}` to the list "
            "under `foreach`"
        )


def _table(results: Path) -> None:
    path = results / "tables" / "tables.txt"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; has the run ended?")
    print(f"\n{path.read_text(encoding='utf-8')}\ntables: {results}/tables   figures: {results}/figures")


def _prove(results: Path) -> None:
    import pandas as pd

    from acll.evaluation.proof import prove
    from acll.tree import Node

    path = results / "tables" / "scores.csv"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; has the run ended?")
    rows = pd.read_csv(path)[["network", "method", "seed", "prefix"]].drop_duplicates()
    nodes = [Node(network, method, seed, tuple(prefix.split("+"))) for network, method, seed, prefix in rows.to_numpy()]
    proofs = prove(results, sorted(nodes, key=lambda node: node.position))
    for method in sorted({node.method for node in nodes}):
        own = [proof for proof in proofs if proof.node.method == method]
        changed = [proof for proof in own if not proof.equal]
        networks = len({proof.node for proof in own})
        print(f"{method}: {len(own)} tasks in {networks} networks, {len(own) - len(changed)} bit for bit as learned")
        for proof in changed:
            print(f"  changed: {proof.task} in {proof.node.folder}")
    broken = [proof for proof in proofs if proof.frozen and not proof.equal]
    if broken:
        raise UserError(f"{len(broken)} tasks are not what they were when they were learned")


def _inspect(path: Path) -> None:
    from tabulate import tabulate

    from acll.packing import file

    packed = file.read(path)
    total = sum(owner.numel() for owner in packed.owner.values())
    left = sum(int((owner == 0).sum()) for owner in packed.owner.values())
    network = ", ".join(f"{key} {value}" for key, value in packed.network.items())
    print(f"{network}; method {packed.method}, seed {packed.seed}")
    print(f"{total:,} shared weights, {left:,} free ({left / total:.1%}); {path.stat().st_size:,} bytes\n")
    rows = [
        [
            position,
            record.name,
            record.kind,
            len(record.classes),
            "x".join(map(str, record.image_size)),
            f"{record.validation_score:.4f}",
            f"{record.owned:,}",
            f"{record.owned / total:.1%}",
            sum(value.numel() for value in packed.private[record.name].values()),
        ]
        for position, record in enumerate(packed.tasks, start=1)
    ]
    headers = ["", "task", "kind", "classes", "size", "validation", "owned", "share", "private values"]
    print(tabulate(rows, headers=headers, intfmt=","))
