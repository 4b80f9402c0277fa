"""The plan: every job of a configuration, with its inputs, outputs and parameters.

`plan` is the one place that says what depends on what. The workflow (Snakefile, workflow/rules)
executes it; `verify`, `repair`, the listing of leftovers and most tests of reruns read it. Nothing
here is run, and nothing is judged.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from acll import plugins
from acll.code import code_of
from acll.config import tree
from acll.config.configuration import Configuration
from acll.methods._free_weights import TrainFreeWeights
from acll.methods.base import TrainingRule
from acll.methods.individual import Individual
from acll.methods.packing import Packing
from acll.node import DENSE, LEARNED, Node, Run, adopted
from acll.packing.cap import cap, equal_share
from acll.parameters.adopt import AdoptParams
from acll.parameters.base import Params
from acll.parameters.commit import CommitParams, RememberParams
from acll.parameters.evaluate import EvaluateParams
from acll.parameters.grow import GrowParams
from acll.parameters.node import NodeParams
from acll.parameters.prepare import PrepareParams, prepared_settings
from acll.parameters.prune import PruneParams
from acll.parameters.report import (
    FiguresParams,
    LastPacked,
    MasksParams,
    MistakesParams,
    SheetsParams,
    TablesParams,
    TraceParams,
)
from acll.parameters.retrain import RetrainParams
from acll.parameters.search import SearchParams
from acll.parameters.train import TrainParams
from acll.parameters.vary import VaryParams
from acll.plugins import CodeOrigin
from acll.search.settings import Search
from acll.settings import Reuse
from acll.training.settings import Batches

Paths = Mapping[str, tuple[str, ...]]  # by what they are for a step; relative to the results

# of each rule, the arguments of its step: names of inputs, names of outputs
ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prepare": ((), ("train", "test", "summary")),
    "vary": (("source_train", "source_test", "source_summary"), ("train", "test", "summary")),
    "sheets": (("train", "summary"), ("figures",)),
    "adopt": ((), ("network",)),
    "train": (("train", "parent", "memory"), ("dense",)),
    "search": (("dense", "parent", "train"), ("trials", "choice", "held")),
    "grow": (
        ("dense", "parent", "trials", "choice", "train"),
        ("grown", "grown_trials", "grown_choice", "grown_held"),
    ),
    "prune": (("dense", "parent", "choice", "held", "train"), ("pruned",)),
    "retrain": (("pruned", "dense", "parent", "train"), ("network",)),
    "commit": (("dense", "parent", "train"), ("network",)),
    "remember": (("network", "dense", "train", "memory_before"), ("memory",)),
    "evaluate": (("network", "test"), ("scores", "examples")),
    "trace": (("trials", "choice"), ("figure",)),
    "masks": (("examples", "scores"), ("figure",)),
    "mistakes": (("examples", "scores"), ("figure",)),
    "tables": (("scores", "summaries", "trials"), ("tables",)),
    "figures": (("tables", "trials", "choices", "packed"), ("figures",)),
}
# arguments on which no result depends
_BESIDES = {"prepare": "--report {log.report:q} --processes {threads}"}

TRAININGS = ("train", "search", "grow", "retrain")  # rules that take the time of a run

TABLES = tuple(
    f"tables/{name}"
    for name in (
        "scores.csv",
        "curves.csv",
        "final.csv",
        "matrix.csv",
        "runs.csv",
        "summary.csv",
        "paired.csv",
        "front.csv",
        "against_fixed.csv",
        "measures.csv",
        "classes.csv",
        "confusion.csv",
        "mistakes.csv",
        "data.csv",
        "plot.csv",
        "trials.csv",
        "metrics.json",
        "summary.md",
        "summary.tex",
        "tables.txt",
    )
)

# the trainings of a first task that methods share
SHARED_FIRST: dict[str, TrainingRule] = {
    DENSE: Individual(type="individual"),
    LEARNED: TrainFreeWeights(type="packing", later="fresh", criterion="learned", reuse="all"),
}


@dataclass(frozen=True)
class Job:
    """One job: a rule and what it is run on. Paths are relative to the results."""

    rule: str
    name: str  # of the node or the task; empty where there is one job of the rule
    inputs: Paths
    outputs: Paths
    params: Params
    code: Mapping[str, str]  # digest of the step's code, versions of libraries
    # of raw data, weights or a packed network, which are no files of the results
    external_digest: str = ""

    @property
    def title(self) -> str:
        """What the job is called when it runs."""
        return f"{self.rule} {self.name}".strip()

    @cached_property
    def text(self) -> str:
        """All that the outputs depend on beside the inputs, as sorted JSON: the one parameter of
        its rule.

        One text, because Snakemake compares parameters as an unordered set.
        """
        params = self.params.model_dump(mode="json")
        content = {"params": params, "code": self.code, "external_digest": self.external_digest}
        return json.dumps(content, sort_keys=True)

    @property
    def all_inputs(self) -> tuple[str, ...]:
        """Every input, whatever it is for."""
        return tuple(path for paths in self.inputs.values() for path in paths)

    @property
    def all_outputs(self) -> tuple[str, ...]:
        """Every output."""
        return tuple(path for paths in self.outputs.values() for path in paths)

    @property
    def digests(self) -> str:
        """The file in which it leaves the digests of its outputs."""
        return self._beside("digests", "sha256")

    @property
    def others(self) -> tuple[str, ...]:
        """Its log, its report of faults and its benchmark."""
        report = (self._beside("logs", "faults.csv"),) if self.rule == "prepare" else ()
        return (self._beside("logs", "log"), *report, self.benchmark)

    @property
    def benchmark(self) -> str:
        """The file in which Snakemake leaves how long it took."""
        return self._beside("benchmarks", "tsv")

    def _beside(self, folder: str, ending: str) -> str:
        return (
            f"{folder}/{self.rule}/{self.name}.{ending}"
            if self.name
            else f"{folder}/{self.rule}.{ending}"
        )


def digest_of(jobs: Iterable[Job]) -> str:
    """Return a digest of what jobs are and of all that their outputs depend on, but for inputs."""
    texts = sorted(f"{job.title}\n{job.text}\n" for job in jobs)
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def command(rule: str) -> str:
    """Return the shell command of a rule's jobs, as Snakemake fills it in."""
    inputs, outputs = ARGUMENTS[rule]
    arguments = [f"--{key.replace('_', '-')} {{input.{key}:q}}" for key in inputs]
    arguments += [f"--{key.replace('_', '-')} {{output.{key}:q}}" for key in outputs]
    arguments += [_BESIDES[rule]] if rule in _BESIDES else []
    arguments += ["--digests {log.digests:q}", "--outputs {output:q}"]
    # Arguments are the lines of a file that bash makes, and the parameters come by standard input:
    # those of many nodes are more than a command line may hold.
    return (
        f"python -S -m acll.steps._client {rule} @<(printf '%s\\n' {' '.join(arguments)}) "
        "<<< {params.job:q} > {log.text:q} 2>&1"
    )


def plan(
    configuration: Configuration,
    raw: Mapping[str, str] | None = None,
    weights: Mapping[str, str] | None = None,
) -> list[Job]:
    """Return the jobs of a configuration, those that others need first.

    configuration: its packed networks must have been opened. raw: the identity of each task's raw
    data; weights: of the weights that each network starts from. Both are by content, and empty
    where they are not given.
    """
    plugins.use(configuration.plugins)
    return list(_Planner(configuration, raw or {}, weights or {}).jobs())


def longest_chains(jobs: Iterable[Job]) -> dict[tuple[str, str], int]:
    """Return how many trainings follow one another from each job on, itself included.

    By rule and name of the job. Whoever starts the longest chains first has no single one left at
    the end, for which all other cores wait.
    """
    chains: dict[tuple[str, str], int] = {}
    followed: dict[str, int] = {}  # of each file, the trainings that wait for it
    for job in reversed(list(jobs)):  # those that others need come first
        after = max((followed.get(path, 0) for path in job.all_outputs), default=0)
        chain = chains[job.rule, job.name] = after + (job.rule in TRAININGS)
        for path in job.all_inputs:
            followed[path] = max(followed.get(path, 0), chain)
    return chains


@dataclass(frozen=True)
class _Planner:
    """What all jobs of a plan are made from."""

    configuration: Configuration
    raw: Mapping[str, str]
    weights: Mapping[str, str]

    def jobs(self) -> Iterator[Job]:
        nodes, runs = tree.nodes(self.configuration), tree.runs(self.configuration)
        tasks = sorted({task for node in nodes for task in self._own_tasks(node)})
        made_from = self.configuration.made_from
        for task in sorted({made_from.get(task, task) for task in tasks}):
            yield self._prepare(task)
        for task in tasks:
            if task in made_from:
                yield self._vary(task, made_from[task])
        yield self._sheets(tasks)
        for network in sorted({node.network for node in nodes} & self.configuration.given.keys()):
            yield self._adopt(network)
        planned: set[str] = set()  # nodes whose dense network is planned already
        for node in nodes:
            dense = self._dense_node(node)
            if dense.name not in planned:
                planned.add(dense.name)
                yield self._train(node, dense)
            yield from self._after_training(node)
            yield self._evaluate(node)
        searched = [node for node in nodes if self._tries(node)]
        yield from map(self._trace, searched)
        yield from self._masks(runs)
        yield from self._mistakes(runs)
        yield self._tables(nodes, runs, tasks, searched)
        yield self._figures(runs, searched)

    # ----------------------------------------------------------------------------------------------
    # data

    def _prepare(self, task: str) -> Job:
        settings = self.configuration.tasks[task]
        params = PrepareParams(name=task, task=prepared_settings(settings))
        own = plugins.code_origins({"source": [settings.source]})
        code = _code("prepare", type(settings).__module__, plugged=own)
        return Job("prepare", task, {}, _of_task(task), params, code, self.raw.get(task, ""))

    def _vary(self, task: str, source: str) -> Job:
        settings, whole = (self.configuration.tasks[name] for name in (task, source))
        as_many = settings.train_samples == whole.train_samples
        params = VaryParams(
            name=task,
            rotate=settings.rotate,
            noise=settings.noise,
            permute=settings.permute,
            train_samples=None if as_many else settings.train_samples,
            split_seed=settings.split_seed,
        )
        inputs = {f"source_{key}": paths for key, paths in _of_task(source).items()}
        return Job("vary", task, inputs, _of_task(task), params, _code("vary"))

    def _sheets(self, tasks: Sequence[str]) -> Job:
        inputs = {"train": tuple(map(_prepared, tasks)), "summary": tuple(map(_summary, tasks))}
        outputs = {"figures": tuple(f"figures/data/{task}.png" for task in tasks)}
        return Job("sheets", "", inputs, outputs, SheetsParams(), _code("sheets"))

    # ----------------------------------------------------------------------------------------------
    # packed networks that sequences go on from

    def _adopt(self, network: str) -> Job:
        given = self.configuration.given[network]
        path = self.configuration.packed[network].packed
        params = AdoptParams(packed=path, network=given.network, tasks=list(given.tasks))
        outputs = {"network": (adopted(network),)}
        return Job("adopt", network, {}, outputs, params, _code("adopt"), given.identity)

    def _own_tasks(self, node: Node) -> tuple[str, ...]:
        """Return the tasks of a node, less those that its network had learned before."""
        return node.tasks[len(self.configuration.tasks_before(node.network)) :]

    def _parent(self, node: Node) -> Node | None:
        """Return the node that a node goes on from; None where it begins, or begins with a file."""
        before = self.configuration.tasks_before(node.network)
        return None if node.prefix[:-1] == before else node.parent

    def _before(self, node: Node) -> tuple[str, ...]:
        """Return the packed network that a node goes on from; none for a first task."""
        if self._parent(node) is None and node.position > 1:
            return (adopted(node.network),)
        return _of(node.parent, "network.safetensors")

    # ----------------------------------------------------------------------------------------------
    # the network of a node

    def _dense_node(self, node: Node) -> Node:
        """Return the node in whose folder the dense network lies: of first tasks methods share
        it."""
        method = self.configuration.methods[node.method]
        network = self.configuration.specs[node.network]
        shared = method.shared_first(network) if node.position == 1 else None
        return node if shared is None else node.shared(shared)

    def _train(self, node: Node, dense: Node) -> Job:
        method = self.configuration.methods[node.method]
        own = method.training_rule()
        rule: TrainingRule = SHARED_FIRST[dense.method] if dense != node else own
        # joint training has one schedule for all its tasks
        training = (
            self.configuration.training_of(node.task)
            if len(node.new_tasks) == 1
            else self.configuration.training
        )
        params = TrainParams(
            node=self._node_params(dense),
            rule=rule,
            schedule=training.for_training(),
            batches=[self.configuration.batches_of(task) for task in node.new_tasks],
        )
        inputs = {
            "train": tuple(map(_prepared, node.new_tasks)),
            "parent": self._before(node),
            "memory": _of(self._parent(node) if method.remembers else None, "memory.safetensors"),
        }
        outputs = {"dense": (f"{dense.folder}/dense.safetensors",)}
        own_method = method.type if dense == node else None
        own_code = self._plugged(node.network, params.batches, method=own_method)
        code = _code("train", rule.__module__, plugged=own_code)
        return Job(
            "train", dense.name, inputs, outputs, params, code, self.weights.get(node.network, "")
        )

    def _after_training(self, node: Node) -> Iterator[Job]:
        rules = {
            "search": self._search,
            "grow": self._grow,
            "prune": self._prune,
            "retrain": self._retrain,
            "commit": self._commit,
        }
        method = self.configuration.methods[node.method]
        for rule in method.rules():
            if rule != "train":  # planned already, and maybe shared
                yield rules[rule](node)
        if method.remembers:
            yield self._remember(node)

    def _search(self, node: Node) -> Job:
        inputs = self._from_dense(node) | {"train": (_prepared(node.task),)}
        outputs = {
            "trials": _of(node, "trials.csv"),
            "choice": _of(node, "choice.json"),
            "held": _of(node, "held.safetensors"),
        }
        params = self._search_params(node)
        code = _code("search", plugged=self._plugged(node.network, [params.batches]))
        return Job("search", node.name, inputs, outputs, params, code)

    def _search_params(self, node: Node) -> SearchParams:
        method, training = self._packing(node), self.configuration.training_of(node.task)
        assert isinstance(method.ratio, Search)
        most = equal_share if method.ratio.search == "fixed" else cap
        bound = (
            most(node.position, method.expected_tasks, method.tail_share) if method.cap else None
        )
        search = method.ratio
        if method.grow is not None:  # the goal is the dense network's score, not that of the cap
            search = search.model_copy(update={"prefer": "size"})
        return SearchParams(
            node=self._node_params(node),
            search=search,
            criterion=method.criterion,
            scope=method.scope,
            reuse=self._reuse(node),
            release=method.release,
            distill=method.distill,
            cap=bound,
            dense_epochs=training.epochs,
            schedule=training.for_retraining(),
            batches=self.configuration.batches_of(node.task),
        )

    def _grow(self, node: Node) -> Job:
        method, training = self._packing(node), self.configuration.training_of(node.task)
        assert method.grow is not None
        rule = method.training_rule()
        if node.position == 1:  # nothing is there that it could start from or read
            rule = rule.model_copy(update={"later": "fresh", "reuse": "all"})
        params = GrowParams(
            grow=method.grow,
            rule=rule,
            schedule=training.for_training(),
            search=self._search_params(node),
        )
        inputs = self._from_dense(node) | {
            "trials": _of(node, "trials.csv"),
            "choice": _of(node, "choice.json"),
            "train": (_prepared(node.task),),
        }
        outputs = {
            "grown": _of(node, "grown.safetensors"),
            "grown_trials": _of(node, "grown_trials.csv"),
            "grown_choice": _of(node, "grown_choice.json"),
            "grown_held": _of(node, "grown_held.safetensors"),
        }
        own = self._plugged(node.network, [params.search.batches], method=method.type)
        code = _code("grow", rule.__module__, plugged=own)
        return Job("grow", node.name, inputs, outputs, params, code)

    def _prune(self, node: Node) -> Job:
        method, training = self._packing(node), self.configuration.training_of(node.task)
        schedule, _ = training.for_retraining().parts(method.release)
        params = PruneParams(
            node=self._node_params(node),
            ratio=None if isinstance(method.ratio, Search) else method.ratio,
            criterion=method.criterion,
            scope=method.scope,
            reuse=self._reuse(node),
            schedule=schedule,
            batches=self.configuration.batches_of(node.task) if schedule is not None else None,
            distill=method.distill and schedule is not None,
        )
        inputs = {
            "dense": self._denses(node),
            "parent": self._before(node),
            "choice": (self._choice(node),) if method.searches else (),
            "held": (
                *_of(node if method.searches else None, "held.safetensors"),
                *_of(node if method.grows else None, "grown_held.safetensors"),
            ),
            "train": (_prepared(node.task),) if schedule is not None else (),
        }
        outputs = {"pruned": _of(node, "pruned.safetensors")}
        own = self._plugged(node.network, [params.batches] if params.batches is not None else [])
        return Job("prune", node.name, inputs, outputs, params, _code("prune", plugged=own))

    def _retrain(self, node: Node) -> Job:
        method, training = self._packing(node), self.configuration.training_of(node.task)
        _, schedule = training.for_retraining().parts(method.release)
        dense = self._denses(node) if method.distill else ()
        params = RetrainParams(
            node=self._node_params(node),
            schedule=schedule,
            batches=self.configuration.batches_of(node.task),
            criterion=method.criterion,
            reuse=self._reuse(node),
        )
        inputs = {
            "pruned": _of(node, "pruned.safetensors"),
            "dense": dense,
            "parent": self._before(node),
            "train": (_prepared(node.task),),
        }
        outputs = {"network": _of(node, "network.safetensors")}
        code = _code("retrain", plugged=self._plugged(node.network, [params.batches]))
        return Job("retrain", node.name, inputs, outputs, params, code)

    def _commit(self, node: Node) -> Job:
        method = self.configuration.methods[node.method]
        params = CommitParams(node=self._node_params(node), type=method.type)
        own = self._plugged(node.network, method=method.type)
        code = _code("commit", type(method).__module__, plugged=own)
        inputs = self._from_dense(node) | {"train": tuple(map(_prepared, node.new_tasks))}
        outputs = {"network": _of(node, "network.safetensors")}
        return Job("commit", node.name, inputs, outputs, params, code)

    def _remember(self, node: Node) -> Job:
        method = self.configuration.methods[node.method]
        params = RememberParams(
            node=self._node_params(node),
            type=method.type,
            batches=self.configuration.batches_of(node.task),
        )
        inputs = {
            "network": _of(node, "network.safetensors"),
            "dense": self._from_dense(node)["dense"],
            "train": (_prepared(node.task),),
            "memory_before": _of(self._parent(node), "memory.safetensors"),
        }
        own = self._plugged(node.network, [params.batches], method=method.type)
        code = _code("remember", type(method).__module__, plugged=own)
        outputs = {"memory": _of(node, "memory.safetensors")}
        return Job("remember", node.name, inputs, outputs, params, code)

    def _evaluate(self, node: Node) -> Job:
        inputs = {
            "network": _of(node, "network.safetensors"),
            "test": tuple(_prepared(task, "test") for task in self._own_tasks(node)),
        }
        outputs = {
            "scores": _of(node, "scores.json"),
            "examples": _of(node, "examples.safetensors"),
        }
        params = EvaluateParams(threads=self.configuration.threads)
        metrics = [self.configuration.tasks[task].metric for task in self._own_tasks(node)]
        own = self._plugged(node.network, metrics=metrics)
        return Job("evaluate", node.name, inputs, outputs, params, _code("evaluate", plugged=own))

    def _plugged(
        self,
        network: str,
        batches: Sequence[Batches] = (),
        metrics: Iterable[str | None] = (),
        method: str | None = None,
    ) -> tuple[CodeOrigin, ...]:
        """Return the code of the plug-ins that a step uses: of a network, by its name here, of
        batches, of metrics besides, and of the type of a method."""
        return plugins.code_origins(
            {
                "network": [getattr(self.configuration.specs[network], "plugin", None)],
                "loss": [one.loss for one in batches],
                "augmentation": [name for one in batches for name in one.augmentation_names],
                "metric": [*metrics, *(one.metric for one in batches)],
                "method": [method],
            }
        )

    def _node_params(self, node: Node) -> NodeParams:
        return NodeParams(
            network=self.configuration.specs[node.network],
            method=node.method,
            seed=node.seed,
            prefix=list(node.prefix),
            threads=self.configuration.threads,
        )

    def _from_dense(self, node: Node) -> dict[str, tuple[str, ...]]:
        dense = (f"{self._dense_node(node).folder}/dense.safetensors",)
        return {"dense": dense, "parent": self._before(node)}

    def _denses(self, node: Node) -> tuple[str, ...]:
        """Return the dense network, and that of the step `grow` where there is one."""
        grows = self._packing(node).grows
        return self._from_dense(node)["dense"] + _of(node if grows else None, "grown.safetensors")

    def _choice(self, node: Node) -> str:
        """Return the choice of a search, the last one where the network may have grown."""
        grown = "grown_" if self._packing(node).grows else ""
        return f"{node.folder}/{grown}choice.json"

    def _trials(self, node: Node) -> str:
        """Return the trials of the search that made the choice."""
        grown = "grown_" if self._packing(node).grows else ""
        return f"{node.folder}/{grown}trials.csv"

    def _packing(self, node: Node) -> Packing:
        method = self.configuration.methods[node.method]
        if not isinstance(method, Packing):
            raise TypeError(f"{type(method).__name__} prunes, but does not derive from Packing")
        return method

    def _reuse(self, node: Node) -> Reuse:
        """Return which weights of earlier tasks a node reads; a first task has none to choose."""
        return self._packing(node).reads if node.position > 1 else "all"

    def _tries(self, node: Node) -> bool:
        """Return whether the search of a node tries something that can be shown."""
        method = self.configuration.methods[node.method]
        return (
            isinstance(method, Packing)
            and isinstance(method.ratio, Search)
            and method.ratio.search != "fixed"
        )

    # ----------------------------------------------------------------------------------------------
    # tables and figures

    def _tables(
        self,
        nodes: Sequence[Node],
        runs: Sequence[Run],
        tasks: Sequence[str],
        searched: Sequence[Node],
    ) -> Job:
        methods = self.configuration.methods
        params = TablesParams(
            nodes=[node.name for node in nodes],
            runs=list(runs),
            searches=[node.name for node in searched],
            budgets={
                name: method.ratio.budget
                for name, method in methods.items()
                if isinstance(method, Packing) and isinstance(method.ratio, Search)
            },
            fixed=self._fixed(),
        )
        inputs = {
            "scores": _of_all(nodes, "scores.json"),
            "summaries": tuple(map(_summary, tasks)),
            "trials": tuple(map(self._trials, searched)),
        }
        return Job("tables", "", inputs, {"tables": TABLES}, params, _code("tables"))

    def _figures(self, runs: Sequence[Run], searched: Sequence[Node]) -> Job:
        packed = self._packed(runs)
        params = FiguresParams(
            searches=[node.name for node in searched],
            packed=[
                LastPacked(sequence=sequence, method=node.method, tasks=list(node.tasks))
                for (sequence, _), node in packed.items()
            ],
            fronts=[
                front for front, ratios in Counter(self._fixed().values()).items() if ratios > 1
            ],
        )
        inputs = {
            "tables": TABLES,
            "trials": tuple(map(self._trials, searched)),
            "choices": tuple(map(self._choice, searched)),
            "packed": _of_all(packed.values(), "scores.json"),
        }
        return Job("figures", "", inputs, {"figures": figures(params)}, params, _code("figures"))

    def _fixed(self) -> dict[str, str]:
        """Return the front of each method whose ratio is fixed.

        The ratios of a front differ in nothing else. The largest of a ranking is named after it,
        the others after what they do in another way than the largest.
        """
        keys = ("release", "distill", "free_weights", "reads")
        settings = {
            name: (_ranking(method), *(getattr(method, key) for key in keys))
            for name, method in self.configuration.methods.items()
            if isinstance(method, Packing) and not method.searches
        }
        largest: dict[str, tuple[Any, ...]] = {}
        for own, _ in Counter(settings.values()).most_common():
            largest.setdefault(own[0], own)
        found = {}
        for name, own in settings.items():
            pairs = zip(keys, own[1:], largest[own[0]][1:], strict=True)
            others = [
                f"{key.replace('reads', 'reuse')}={str(value).lower()}"
                for key, value, usual in pairs
                if value != usual
            ]
            found[name] = " ".join([own[0], *others])
        return found

    def _packed(self, runs: Sequence[Run]) -> dict[tuple[str, str], Node]:
        """Return the last network of each sequence and packing method, in its first order and for
        the first seed.

        It shows who owns what.
        """
        found: dict[tuple[str, str], Node] = {}
        for run in runs:
            if isinstance(self.configuration.methods[run.method], Packing):
                found.setdefault((run.sequence, run.method), run.nodes(len(run.tasks))[0])
        return found

    # ----------------------------------------------------------------------------------------------
    # pictures, each from few files: with all in one job, the record of each would name the inputs
    # of all

    def _trace(self, node: Node) -> Job:
        inputs = {"trials": (self._trials(node),), "choice": (self._choice(node),)}
        outputs = {"figure": (f"figures/searches/{node.name}.svg",)}
        return Job("trace", node.name, inputs, outputs, TraceParams(node=node.name), _code("trace"))

    def _masks(self, runs: Sequence[Run]) -> Iterator[Job]:
        for (sequence, task), methods in self._masked(runs).items():
            params = MasksParams(
                sequence=sequence,
                task=task,
                methods=list(methods),
                networks=[len(nodes) for nodes in methods.values()],
            )
            shown = [node for nodes in methods.values() for node in nodes]
            yield _picture("masks", f"{sequence}.{task}", shown, params)

    def _mistakes(self, runs: Sequence[Run]) -> Iterator[Job]:
        for (sequence, task), ends in self._mistaken(runs).items():
            params = MistakesParams(sequence=sequence, task=task, methods=list(ends))
            yield _picture("mistakes", f"{sequence}.{task}", list(ends.values()), params)

    def _masked(self, runs: Sequence[Run]) -> dict[tuple[str, str], dict[str, list[Node]]]:
        """Return, for each segmentation task of a sequence, the networks of each method whose masks
        are shown.

        When the task is learned and at the end, in the first order and for the first seed.
        """
        found: dict[tuple[str, str], dict[str, list[Node]]] = {}
        for run in runs:
            first = len(self.configuration.tasks_before(run.network)) + 1
            for position, task in enumerate(run.tasks[first - 1 :], first):
                if self.configuration.tasks[task].kind == "segmentation":
                    shown = (*run.nodes(position), *run.nodes(len(run.tasks)))
                    serving = [node for node in shown if task in node.tasks]
                    methods = found.setdefault((run.sequence, task), {})
                    methods.setdefault(run.method, list(dict.fromkeys(serving)))
        return found

    def _mistaken(self, runs: Sequence[Run]) -> dict[tuple[str, str], dict[str, Node]]:
        """Return, for each task of a sequence, the network of each method whose mistakes are shown.

        The one at the end, in the first order and for the first seed.
        """
        found: dict[tuple[str, str], dict[str, Node]] = {}
        for run in runs:
            for node in run.nodes(len(run.tasks)):
                for task in self._own_tasks(node):
                    found.setdefault((run.sequence, task), {}).setdefault(run.method, node)
        return found


def _ranking(method: Packing) -> str:
    """Return in a word how a method ranks weights: by scores, or by magnitude in a scope."""
    return "learned" if method.criterion == "learned" else method.scope


def figures(params: FiguresParams) -> tuple[str, ...]:
    """Return the files of the figures of all runs together."""
    names = ["scores", "matrix", "sizes", "curves"]
    names += ["shares", "layers"] if params.packed else []
    names += ["search", "difficulty"] if params.searches else []
    names += ["front"] if params.fronts else []
    return tuple(f"figures/{name}.svg" for name in names)


def _picture(rule: str, name: str, nodes: Sequence[Node], params: Params) -> Job:
    """Return a job that draws test images, and what the networks of some nodes make of them."""
    inputs = {
        "examples": _of_all(nodes, "examples.safetensors"),
        "scores": _of_all(nodes, "scores.json"),
    }
    outputs = {"figure": (f"figures/{rule}/{name}.png",)}
    return Job(rule, name, inputs, outputs, params, _code(rule))


def _of_task(task: str) -> dict[str, tuple[str, ...]]:
    """Return the files of a task, by what they are for."""
    return {
        "train": (_prepared(task),),
        "test": (_prepared(task, "test"),),
        "summary": (_summary(task),),
    }


def _prepared(task: str, split: str = "train") -> str:
    return f"data/{task}.{split}.safetensors"


def _summary(task: str) -> str:
    return f"data/{task}.json"


def _of(node: Node | None, name: str) -> tuple[str, ...]:
    """Return a file of a node; none where there is no node."""
    return (f"{node.folder}/{name}",) if node is not None else ()


def _of_all(nodes: Any, name: str) -> tuple[str, ...]:
    return tuple(f"{node.folder}/{name}" for node in nodes)


def _code(rule: str, *modules: str, plugged: Sequence[CodeOrigin] = ()) -> dict[str, str]:
    """Return what the code of a rule's step is, with the modules that it loads by name.

    plugged: the plug-ins that it uses; modules that are not of the package are theirs.
    """
    inside = [module for module in modules if module.startswith("acll.")]
    # plug-ins may be edited while a process plans several times
    if plugged:
        return code_of(f"acll.steps.{rule}", *inside, plugged=plugged)
    return _code_of_package(rule, *inside)


@cache
def _code_of_package(rule: str, *modules: str) -> dict[str, str]:
    return code_of(f"acll.steps.{rule}", *modules)
