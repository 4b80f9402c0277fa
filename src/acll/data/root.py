"""Where raw data lie. No parameter of any step: colleagues keep them in different places."""

import os
from pathlib import Path


def data_root(default: str = "data") -> Path:
    """The folder that `DATA=…` or the workflow has set, or the default."""
    return Path(os.environ.get("ACLL_DATA_ROOT", default))
