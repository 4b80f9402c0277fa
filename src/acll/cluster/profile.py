"""Profiles: what a person says of where jobs run."""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import yaml

from acll.cluster.queue import keeps_accounts, settings_of_slurm
from acll.errors import UserError, suggestion
from acll.plan import ARGUMENTS

EXECUTOR = "snakemake_executor_plugin_slurm"
PLUGINS = Path(sys.prefix) / "slurm"  # where the Makefile puts it
_FOLDER = "profiles"  # in a checkout or a project
_DEFAULT = "default"  # the profile that is in force beside any other, and before it
_FORGOTTEN = 120  # seconds; a scheduler that forgets jobs sooner could forget one unseen
_CORES = 10_000  # of all jobs of a run together; those of the machine that submits are no limit
# what the executor asks of Slurm for a job
_RESOURCES = (
    *("slurm_partition", "slurm_account", "slurm_extra", "qos", "constraint", "threads"),
    *("runtime", "mem_mb", "mem", "mem_mb_per_cpu", "disk_mb", "disk", "tmpdir"),
    *("gpu", "gpu_model", "gres", "cpus_per_gpu", "cpus_per_task"),
    *("tasks", "tasks_per_gpu", "tasks_per_node", "nodes", "mpi"),
)
_FOREIGN = ("slurm-array-jobs", "slurm_cluster", "cluster", "clusters")
_NAMES = "--slurm-jobname-prefix="


def arguments_of(root: Path, profile: str, names: str) -> list[str]:
    """Return Snakemake's arguments for a profile of the folder `root`.

    names: how the names of jobs in the queue are to begin. Raises UserError where there is no such
    profile, what it needs is not here, or it would not be in force.
    """
    path = root / _FOLDER / profile / "config.yaml"
    if not re.fullmatch(r"[\w.-]+", profile) or profile == _DEFAULT or not path.is_file():
        found = sorted(one.parent.name for one in (root / _FOLDER).glob("*/config.yaml"))
        there = ", ".join(name for name in found if name != _DEFAULT) or "none"
        raise UserError(
            f"{profile}: there is no profile of that name, {_FOLDER}/<name>/config.yaml; "
            f"profiles here: {there}"
        )
    settings = _settings(path)
    if "executor" not in settings:
        raise UserError(f"{path}: `executor: slurm`, or another one, is missing")
    default = root / _FOLDER / _DEFAULT / "config.yaml"
    twice = sorted(settings.keys() & _settings(default).keys()) if default.is_file() else []
    if twice:
        raise UserError(
            f"{default.relative_to(root)}: sets {', '.join(twice)}, too, and goes before "
            f"{path.relative_to(root)}; take it out of one of them"
        )
    arguments = [f"--profile={path.parent}", f"--cores={_CORES}"]
    if settings.get("executor") != "slurm":
        return arguments
    if unknown := _unknown(settings):
        raise UserError(f"{path.relative_to(root)}: {unknown}")
    if foreign := _foreign(settings):
        raise UserError(
            f"{path.relative_to(root)}: {foreign}: not supported here; one cluster, and a job for "
            "each node of the configuration"
        )
    if PathFinder.find_spec(EXECUTOR, [*sys.path, str(PLUGINS)]) is None:
        raise UserError('Snakemake\'s executor for Slurm is missing: pip install "acll[slurm]"')
    remembered = settings_of_slurm().get("MinJobAge", "0")
    if not keeps_accounts() and int(remembered) < _FORGOTTEN:
        raise UserError(
            f"this Slurm keeps no accounts of jobs, and forgets them {remembered} seconds after "
            "their end (MinJobAge): too soon to see what became of them; at least "
            f"{_FORGOTTEN} are needed"
        )
    # the executor would ask by itself which of its ways of looking there is; ours needs none
    return [*arguments, "--slurm-status-command=squeue", f"{_NAMES}{names}"]


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}, or before it: " if error.problem_mark else ""
        raise UserError(f"{path}: {line}not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return settings if isinstance(settings, dict) else {}


def _unknown(settings: Mapping[str, Any]) -> str | None:
    """Return a name of a resource or of a rule that there is not: it may be misspelt."""
    limited = [text.partition("=")[0].strip() for text in _listed(settings, "resources")]
    rules, resources = list(ARGUMENTS), [*_RESOURCES, *_FOREIGN, *limited]
    named = [
        ("default-resources", text, "", text) for text in _listed(settings, "default-resources")
    ]
    for text in _listed(settings, "set-resources"):
        rule, _, resource = text.partition(":")
        named.append(("set-resources", text, rule, resource))
    named += [("set-threads", text, text, "") for text in _listed(settings, "set-threads")]
    for key, text, *given in named:
        for kind, part, known in zip(("rule", "resource"), given, (rules, resources), strict=True):
            name = part.partition("=")[0].strip()
            if name and name not in known:
                meant = suggestion(name, known)
                return f"{key}: {text!r}: there is no {kind} {name!r}{meant}"
    return None


def _listed(settings: Mapping[str, Any], key: str) -> list[str]:
    """Return what a setting says, as a list of `name=value` and `rule:name=value`."""
    value = settings.get(key) or []
    if not isinstance(value, Mapping):
        return [str(one) for one in (value if isinstance(value, list) else [value])]
    texts = []
    for name, own in value.items():
        inner = own.items() if isinstance(own, Mapping) else ()
        texts += [f"{name}:{resource}={one}" for resource, one in inner] or [f"{name}={own}"]
    return texts


def _foreign(settings: Mapping[str, Any]) -> str | None:
    """Return a setting of the executor of which what looks after jobs knows nothing."""
    resources = settings.get("default-resources", [])
    names = [str(one).partition("=")[0] for one in resources]
    own = [*settings, *names]
    return next((name for name in own if name in _FOREIGN), None)


def uses_slurm(arguments: Sequence[str]) -> bool:
    """Return whether Snakemake's arguments, from `arguments_of`, are for Slurm."""
    return any(argument.startswith(_NAMES) for argument in arguments)
