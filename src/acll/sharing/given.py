"""Packed networks that a configuration goes on from, opened; also where a colleague has no files.

A packed network is raw data of a kind. Where its file is not here, or is the one that was copied
among the results, what it says is taken from the record of the copy.
"""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from acll.config.checks import faults_of_opened, load_configuration
from acll.config.configuration import Configuration
from acll.config.given import Given
from acll.data.root import data_root
from acll.errors import UserError
from acll.files import sha256
from acll.networks.spec import Network
from acll.node import adopted
from acll.sharing.records import read_record


def load_opened(path: Path) -> Configuration:
    """Read a configuration of a checkout, and open its packed networks.

    path: `<root>/config/<name>.yaml`. Raises as `load_configuration` and `open_given`.
    """
    configuration = load_configuration(path)
    root = path.absolute().parent.parent.resolve()
    data = root / data_root(configuration.data_root)
    return open_given(configuration, data, root / "results" / configuration.name)


def open_given(configuration: Configuration, root: Path, results: Path) -> Configuration:
    """Return a configuration with what the files of its packed networks say.

    root: of the data. Raises UserError with a line for each file that is neither here nor recorded
    or that cannot be used, or else for each part of the configuration that does not go with them.
    """
    if not configuration.packed:
        return configuration
    found, faults = {}, []
    for name, network in configuration.packed.items():
        key = f"networks.{name}.packed = {network.packed!r}"
        path, given = root / network.packed, _recorded(results, name, network.packed)
        try:
            if path.exists() and not (given and path.is_file() and sha256(path) == given.identity):
                given = _read(path)
        except UserError as error:
            faults.append(f"{key}: {error}")
            continue
        if given is None:
            faults.append(f"{key}: there is no such file in {root}")
        else:
            found[name] = given
    whole = configuration.opened(found)
    faults = faults or faults_of_opened(whole)
    if faults:
        raise UserError("\n".join(dict.fromkeys(faults)))
    return whole


def _read(path: Path) -> Given:
    """Return what a file says. Raises PackingError, or UserError for one of no use here."""
    # torch, which takes a second, is needed for this alone
    from acll.packing.load import naming, specification
    from acll.packing.packed_file import open_packed

    file = open_packed(path)
    packed = file.without_weights()
    if not packed.tasks:
        raise UserError(f"{path}: has learned no task")
    changing = next((one.name for one in packed.tasks if not one.frozen), None)
    if changing is not None:
        raise UserError(
            f"{path}: learned by a method that changes earlier tasks, {packed.method}: {changing} "
            "and its weights are not kept apart from what comes later"
        )
    with naming(file):
        spec = specification(packed)
    return Given(spec, tuple(record.name for record in packed.tasks), sha256(path))


def _recorded(results: Path, name: str, packed: str) -> Given | None:
    """Return what a file said when it was copied among the results; None where it never was."""
    record = read_record(results, adopted(name))
    params = {} if record is None else record.params.get("params", {})
    if record is None or params.get("packed") != packed:
        return None
    try:
        spec: Network = TypeAdapter(Network).validate_python(params["network"])
    except (KeyError, ValidationError):  # of another version
        return None
    return Given(spec, tuple(params["tasks"]), str(record.params["external_digest"]))
