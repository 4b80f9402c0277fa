"""The stage of a configuration in dvc.yaml.

Only configurations that are run have one. DVC expects the results of every stage to be there, so
`dvc checkout` and `dvc exp apply` would fail over configurations that nobody has run.
"""

import fcntl
import io
from pathlib import Path
from typing import Any

from acll.errors import UserError
from acll.files import write_text

_MERGED = {
    "dvc.lock": "take one side, for example `git checkout --theirs dvc.lock`",
    "dvc.yaml": "keep the lines of both sides",
}
# of each run, below its tables: what `dvc plots` shows, of one version or of several side by side
PLOTS = {
    "plot.csv": {"template": "bar_horizontal", "x": "score", "y": "result"},
    "summary.csv": {
        "template": "scatter",
        "x": "size",
        "y": "mean_score",
        "x_label": "size, in separate networks",
    },
}


def refuse_conflicts(root: Path) -> None:
    """Raise UserError, with what to do, where a merge has left its markers in DVC's files."""
    for name, advice in _MERGED.items():
        path = root / name
        if path.is_file() and "<<<<<<<" in path.read_text(encoding="utf-8"):
            raise UserError(
                f"{name}: a merge has left conflicts in it; {advice}, `git add` and `git commit` "
                "it: see docs/sharing.md"
            )


def as_run(root: Path, name: str) -> str:
    """Return the configuration of the last run, as text.

    That is its file or, where the file has been edited after the run, what dvc.lock has.
    """
    from ruamel.yaml import YAML

    yaml, key, lock = YAML(typ="safe"), f"config/{name}.yaml", root / "dvc.lock"
    text = (root / key).read_text(encoding="utf-8")
    content = yaml.load(lock.read_text(encoding="utf-8")) if lock.is_file() else None
    stage = (content or {}).get("stages", {}).get(f"run@{name}", {})
    recorded = stage.get("params", {}).get(key)
    if recorded is None or recorded == yaml.load(text):
        return text
    was = io.StringIO()
    yaml.dump(recorded, was)
    return f"# {key} has been edited since the run, which had:\n{was.getvalue()}"


def add_stage(path: Path, name: str) -> bool:
    """Add a stage for a configuration, its metrics and plots; return False where there is one.

    path: of dvc.yaml.
    """
    lock = path.parent / ".cache/stages.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # runs that begin at once would lose each other's stages
        return _add_stage(path, name)


def _add_stage(path: Path, name: str) -> bool:
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
    content["plots"] += [
        {f"results/{name}/tables/{table}": dict(plot)} for table, plot in PLOTS.items()
    ]
    content["plots"].append(f"results/{name}/figures/scores.svg")
    text = io.StringIO()
    yaml.dump(content, text)
    write_text(path, text.getvalue())
    return True
