# Configuration, the tree of nodes, and what all rules share.

import contextlib
import json
import os
import sys
from collections import Counter
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.20")

ROOT = Path(workflow.basedir)

# The package of this checkout comes first, for this process and for its jobs: not an installed one from elsewhere.
sys.path.insert(0, str(ROOT / "src"))
os.environ["PYTHONPATH"] = str(ROOT / "src")
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ["PYTHONWARNINGS"] = "ignore"  # of libraries among themselves; they would fill the logs

from acll import tree
from acll.closure import code_of
from acll.settings import (
    EWC,
    Configuration,
    FineTuning,
    Frozen,
    Individual,
    Joint,
    LwF,
    Packing,
    Training,
)
from acll.config import parse as parse_configuration
from acll.data.identity import FINGERPRINTS
from acll.errors import UserError
from acll.lock import LOCK, held
from acll.packing.cap import cap
from acll.sharing.raw import raw_identities, weight_identities


def configuration() -> Configuration:
    if not config:
        raise WorkflowError("no configuration: type `make run CONFIG=<name>`, or give --configfile and --directory")
    try:
        parsed = parse_configuration(json.loads(json.dumps(config)))
    except UserError as error:
        raise WorkflowError(str(error)) from None
    if Path.cwd().name != parsed.name:
        # another folder would be that of another configuration, whose results would be overwritten
        raise WorkflowError(f"results belong into a folder of that name: add --directory results/{parsed.name}")
    return parsed


CONFIGURATION = configuration()
NODES = tree.nodes(CONFIGURATION)
PARENTS = {node.parent for node in NODES}
TASKS = {task for node in NODES for task in node.tasks}
DATA_ROOT = (ROOT / os.environ.get("ACLL_DATA_ROOT", CONFIGURATION.data_root)).resolve()
# Where raw data lie is no parameter of a rule: colleagues keep them elsewhere.
os.environ["ACLL_DATA_ROOT"] = str(DATA_ROOT)


def identities() -> tuple[dict[str, str], dict[str, str]]:
    """The identities, by content, of each task's raw data and of the weights that each network starts from."""
    results = Path.cwd()
    try:
        raw = raw_identities(CONFIGURATION, TASKS, DATA_ROOT, results, ROOT / FINGERPRINTS)
        return raw, weight_identities(CONFIGURATION, DATA_ROOT, results)
    except UserError as error:
        raise WorkflowError(str(error)) from None


RAW, WEIGHTS = identities()


# read once for each step, not once for each node
code_of_step = cache(code_of)


def step(name: str, arguments: str) -> str:
    """The command of a step: it shares the run's lock as long as it works, and ends with the digests of what it wrote.

    One that fails shows the end of its log.
    """
    lock = f"exec 9>>{LOCK} && flock --shared 9"
    # the settings come by standard input: an argument may have 128 KiB, and those of many nodes have more
    command = f"python -m acll.steps.{name} {arguments} --params /dev/stdin <<< {{params.spec:q}} > {{log.text:q}} 2>&1"
    digests = "sha256sum {output:q} > {log.digests:q}"
    return f"{lock} && {command} && {digests} || {{{{ tail -n 15 {{log.text:q}} >&2; exit 1; }}}}"


def spec(name: str, settings: dict, outside: str = "") -> str:
    """A rule's one parameter: its settings and the identity of its code and of outside inputs, as sorted JSON.

    One text, because Snakemake compares parameters as an unordered set.
    """
    content = settings | {"code": code_of_step(f"acll.steps.{name}"), "outside": outside}
    return json.dumps(content, sort_keys=True)


def node_at(wildcards) -> tree.Node:
    network, method, seed, *prefix = wildcards.node.split("/")
    return tree.Node(network, method, int(seed.removeprefix("seed")), tuple(prefix))


def made_here(task: str) -> bool:
    """Whether the images of a task come with the package, so that there is nothing to decode."""
    return CONFIGURATION.tasks[task].source in ("digits", "generated")


def channels_of(task: str) -> list[int]:
    """Of the images that the networks take which learn a task."""
    learning = {line.network for line in CONFIGURATION.sequences.values() if task in line.tasks}
    return sorted({CONFIGURATION.networks[network].channels for network in learning})


def prepared(task: str, split: str = "train") -> str:
    return f"data/{task}.{split}.safetensors"


def train_data(wildcards) -> str:
    return prepared(node_at(wildcards).task)


def dense_network(wildcards) -> str:
    return node_at(wildcards).dense


def parent_network(wildcards) -> list[str]:
    parent = node_at(wildcards).parent
    return [f"{parent.folder}/network.safetensors"] if parent else []


def importance_of_parent(wildcards) -> list[str]:
    parent = node_at(wildcards).parent
    return [f"{parent.folder}/importance.safetensors"] if parent else []


def choice_of_search(wildcards) -> list[str]:
    node = node_at(wildcards)
    return [f"{node.folder}/choice.json"] if tree.searches(CONFIGURATION, node) else []


def files_of(node: tree.Node) -> list[str]:
    """All that is made at a node."""
    method = CONFIGURATION.methods[node.method]
    names = ["network.safetensors", "scores.json"]
    if isinstance(method, Packing):
        names.append("pruned.safetensors")
    if tree.searches(CONFIGURATION, node):
        names += ["trials.csv", "choice.json"]
    if isinstance(method, EWC) and node in PARENTS:
        names.append("importance.safetensors")
    dense = [] if isinstance(method, Joint) else [node.dense]
    return dense + [f"{node.folder}/{name}" for name in names]


DENSE_ONLY = {"epochs", "learning_rate"}
RETRAINING_ONLY = {"retrain_epochs", "retrain_learning_rate"}


def place_settings(node: tree.Node) -> dict:
    return {
        "network": CONFIGURATION.networks[node.network].model_dump(),
        "method": node.method,
        "seed": node.seed,
        "prefix": node.prefix,
        "threads": CONFIGURATION.threads,
    }


def node_settings(node: tree.Node, unused: set[str]) -> dict:
    """What a step needs to know of a node, less the keys of `training` that it does not use: a change of them is none."""
    training = CONFIGURATION.training_of(node.task)
    if CONFIGURATION.tasks[node.task].kind == "classification":
        unused = unused | {"loss"}
    if training.optimizer == "adamw":
        unused = unused | {"momentum"}
    return place_settings(node) | {"training": training.model_dump(exclude=unused)}


def train_settings(node: tree.Node) -> dict:
    method = CONFIGURATION.methods.get(node.method)
    # a first task starts from the network's own weights; plain fine-tuning has no free weights to start
    later = method.free_weights if isinstance(method, Packing) else "fresh"
    freeze = "weights" if node.position == 1 or isinstance(method, Packing) else "nothing"
    return {
        "node": node_settings(node, RETRAINING_ONLY),
        "free_weights": "pretrained" if node.position == 1 else later,
        "freeze": "features" if isinstance(method, Frozen) else freeze,
    }


def search_settings(node: tree.Node) -> dict:
    method = CONFIGURATION.methods[node.method]
    return {
        # the length of the dense training is the unit of the budget
        "node": node_settings(node, DENSE_ONLY - {"epochs"}),
        "search": method.ratio.model_dump(),
        "scope": method.scope,
        "cap": cap_of(node),
    }


def prune_settings(node: tree.Node) -> dict:
    method = CONFIGURATION.methods[node.method]
    return {
        "ratio": None if tree.searches(CONFIGURATION, node) else method.ratio,
        "scope": method.scope,
        "network": place_settings(node)["network"],
    }


def adopt_settings(node: tree.Node) -> dict:
    return {
        "node": node_settings(node, set(Training.model_fields)),
        "frozen": isinstance(CONFIGURATION.methods[node.method], Frozen),
    }


def regularised_settings(node: tree.Node, name: str) -> dict:
    """What the training of a method with a regulariser of that name needs to know."""
    return {
        "node": node_settings(node, RETRAINING_ONLY),
        name: CONFIGURATION.methods[node.method].model_dump(),
    }


def join_settings(node: tree.Node) -> dict:
    """The schedule is that of the whole, batches and losses are each task's own."""
    of_batches = {"loss", "class_weights", "augmentation", "label_smoothing", "batch_size", "mixed_precision"}
    whole, alone = RETRAINING_ONLY | of_batches, {*Training.model_fields} - of_batches
    return {
        "node": place_settings(node) | {"training": CONFIGURATION.training.model_dump(exclude=whole)},
        "trainings": {task: CONFIGURATION.training_of(task).model_dump(exclude=alone) for task in node.tasks},
    }


def cap_of(node: tree.Node) -> float | None:
    method = CONFIGURATION.methods[node.method]
    return cap(node.position, method.expected_tasks, method.tail_share) if method.cap else None


def is_fixed(node: tree.Node) -> bool:
    """Whether the search of this node tries nothing, so that there is nothing to show."""
    return CONFIGURATION.methods[node.method].ratio.search == "fixed"


def methods_of(*kinds: type, others: tuple[str, ...] = ()) -> str:
    """A regular expression for nodes of the methods of these types, and others; for no node where there are none."""
    names = [*others, *(name for name, method in CONFIGURATION.methods.items() if isinstance(method, kinds))]
    return f"[a-z0-9_]+/({'|'.join(names)})/seed[0-9]+(/[a-z0-9_+]+)+" if names else "(?!)"


def gpus(wildcards) -> int:
    """One for each training where there is a GPU, so that the profile's `gpu` bounds how many share it."""
    return int(Path("/dev/nvidia0").exists())


def refuse_replaced_profile():
    limit = workflow.dag_settings.max_checksum_file_size
    if limit < 10**12:
        raise WorkflowError(
            "the default profile is not in force (max-checksum-file-size is too small), so results could not be "
            "shared: give --profile beside it, or set `max-checksum-file-size: 1TB` in your --workflow-profile"
        )


IN_USE = contextlib.ExitStack()  # as long as this process lives


def take_results():
    try:
        IN_USE.enter_context(held(Path.cwd()))
    except UserError as error:
        raise WorkflowError(str(error)) from None


def account(dag) -> str:
    """What has run, and what was there already."""
    jobs = {job for job in dag.jobs if job.output}
    ran = Counter(job.rule.name for job in dag.needrun_jobs(exclude_finished=False) if job.output)
    rules = ", ".join(f"{count} {rule}" for rule, count in ran.items()) or "none"
    return f"{ran.total()} of {len(jobs)} jobs have run ({rules}); the results of {len(jobs) - ran.total()} were there"


def errors_of_steps() -> list[str]:
    """What the steps of this run that failed have said, the name of the log in front."""
    began = Path(LOCK).stat().st_mtime  # the run wrote its name there
    logs = [path for path in sorted(Path("logs").rglob("*.log")) if path.stat().st_mtime >= began]
    lines = [(path, line) for path in logs for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return [f"{path.relative_to('logs').with_suffix('')}: {line}" for path, line in lines if line.startswith("error: ")]


wildcard_constraints:
    sequence="[a-z0-9_]+",
    task="[a-z0-9_]+",
    node="[a-z0-9_]+/[a-z0-9_]+/seed[0-9]+(/[a-z0-9_+]+)+",
