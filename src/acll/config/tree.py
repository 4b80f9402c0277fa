"""The tree of prefixes: which nodes a configuration asks for, and where their files lie.

A node is (network, method, seed, prefix): the tasks learned so far, in order. The parent of prefix
a/b/c is a/b, so sequences and orders that begin alike share their work and appending a task adds
one node a method and seed. What is no prefix is keyed by what it depends on: tasks that are learned
together by their set, networks of single tasks by the task.
"""

from collections.abc import Sequence
from itertools import permutations
from math import factorial
from random import Random

from acll.config.configuration import Configuration
from acll.node import Node, Run


def orders(tasks: Sequence[str], which: str) -> list[tuple[str, ...]]:
    """Return the orders in which tasks are learned. which: `given`, `all`, or `<n> random`.

    Random orders are all different and the same for the same tasks. There are all orders where
    there are no more than n.
    """
    if which == "given":
        return [tuple(tasks)]
    count = factorial(len(tasks))
    if which == "all" or int(which.split()[0]) >= count:
        return list(permutations(tasks))
    generator = Random(f"{sorted(tasks)}")  # noqa: S311 - no secret
    drawn: dict[tuple[str, ...], None] = {}  # a set that keeps its order
    while len(drawn) < int(which.split()[0]):
        drawn[tuple(generator.sample(sorted(tasks), len(tasks)))] = None
    return list(drawn)


def runs(configuration: Configuration) -> list[Run]:
    """Return every run of a configuration, whose packed networks must have been opened."""
    found = []
    for sequence, settings in configuration.sequences.items():
        before = configuration.tasks_before(settings.network)
        for order in orders(settings.tasks, configuration.orders):
            tasks = before + order
            for name, method in configuration.methods.items():
                # of tasks that the network brought along there is no node
                stages = ((),) * len(before) + method.stages(tasks)[len(before) :]
                for seed in configuration.seeds:
                    found.append(
                        Run(sequence, settings.network, name, method.type, seed, tasks, stages)
                    )
    return found


def nodes(configuration: Configuration) -> list[Node]:
    """Return every node of every run, each once, parents before children."""
    found = {
        node
        for run in runs(configuration)
        for stage in range(1, len(run.tasks) + 1)
        for node in run.nodes(stage)
    }
    return sorted(
        found, key=lambda node: (node.network, node.method, node.seed, node.position, node.prefix)
    )
