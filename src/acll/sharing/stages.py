"""The stage of a configuration in dvc.yaml.

Only configurations that are run have one: DVC takes every stage for something whose results there should be, so that
`dvc checkout` and `dvc exp apply` would fail over those that nobody has run.
"""

import io
from pathlib import Path
from typing import Any

from acll.files import write_text

PLOT = {"template": "bar_horizontal", "x": "score", "y": "result"}


def add_stage(path: Path, name: str) -> bool:
    """Add a stage for a configuration, its metrics and its plot, unless there is one. Whether anything was added."""
    from ruamel.yaml import YAML  # as DVC itself: comments stay where they are

    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    content: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"))
    names = content["stages"]["run"]["foreach"]
    if name in names:
        return False
    names.append(name)
    content["metrics"].append(f"results/{name}/tables/metrics.json")
    content["plots"].append({f"results/{name}/tables/plot.csv": PLOT})
    text = io.StringIO()
    yaml.dump(content, text)
    write_text(path, text.getvalue())
    return True
