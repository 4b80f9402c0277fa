"""Take a packed network that was made elsewhere among the results, after all of it was checked."""

import shutil
from pathlib import Path

from acll.data.root import data_root
from acll.files import written
from acll.packing import packed_file
from acll.packing.load import naming, restore_network
from acll.packing.ownership import PackingError, digest
from acll.parameters.adopt import AdoptParams
from acll.steps._run import run_step


def main(*, network: Path, params: AdoptParams) -> None:
    """Write a copy of the file, byte for byte.

    Raises PackingError where a task is not, bit for bit, what it was when it was learned, or where
    its network cannot be built.
    """
    path = data_root() / params.packed
    opened = packed_file.open_packed(path)
    packed = opened.whole()
    with naming(opened):
        for record in packed.tasks:
            if digest(restore_network(packed, record.name)[1]) != record.digest:
                raise PackingError(f"{record.name} is not what it was when it was learned")
    with written(network) as beside:
        shutil.copyfile(path, beside)
    print(f"{path}: learned {', '.join(params.tasks)}; each is, bit for bit, as it was learned")


if __name__ == "__main__":
    run_step(main)
