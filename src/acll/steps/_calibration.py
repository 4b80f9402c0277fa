"""The temperatures of tasks, fitted when their network is written."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from acll.data.batches import Split
from acll.packing.load import restore_network, task_info_of
from acll.packing.ownership import Packed, TaskRecord
from acll.training.calibration import temperature
from acll.training.evaluate import outputs


def calibrated(packed: Packed, validation: Mapping[str, Split], device: torch.device) -> Packed:
    """Return a packed network whose tasks know their temperatures.

    validation: the validation splits of these tasks. The networks are those that the file will
    give. Raises NotFiniteError.
    """

    def fitted(record: TaskRecord) -> TaskRecord:
        split = validation.get(record.name)
        if split is None:
            return record
        network = restore_network(packed, record.name)[0].to(device)
        given = outputs(network, split, task_info_of(record), device)
        return replace(record, temperature=temperature(given, len(split)))

    return replace(packed, tasks=tuple(fitted(record) for record in packed.tasks))
