"""What the workflow tells its jobs besides their parameters, because no result depends on it."""

import json
import os
from pathlib import Path

ROOT_KEY = "ACLL_DATA_ROOT"
CHANNELS_KEY = "ACLL_NETWORK_CHANNELS"


def data_root(default: str = "data") -> Path:
    """Return the folder of raw data: what `DATA=…` has set, or the default.

    Colleagues keep raw data in different places. `~` is the home of who runs this.
    """
    path = Path(os.environ.get(ROOT_KEY, default))
    return path.expanduser() if path.parts[:1] == ("~",) else path


def networks_channels(task: str) -> list[int]:
    """Return the channels of the networks that are to learn a task; none where nobody has said.

    So a network that cannot take a task's images is found when these are prepared, before anything
    is trained.
    """
    told = json.loads(os.environ.get(CHANNELS_KEY, "{}"))
    return [int(channels) for channels in told.get(task, [])]
