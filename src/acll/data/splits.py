"""Cutting a split: shuffled, stratified, groups kept together, from a seed of the task alone.

And what no split may lack.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acll.data.errors import DataError
from acll.data.faults import DataFault, some
from acll.data.prepared import IGNORE
from acll.data.storage import SPLITS
from acll.settings import Kind


def stratified_group_split(
    strata: NDArray[Any], groups: Sequence[str], share: float, seed: int
) -> NDArray[np.bool_]:
    """Choose about `share` of the samples to be cut off; return bool [N], True for these.

    strata: [N] what to stratify by, see `strata_of`. groups: N names; a group stays whole. Of each
    stratum with two groups or more, at least one goes to either side.
    """
    names, first, members = np.unique(np.array(groups), return_index=True, return_inverse=True)
    generator = np.random.default_rng([seed, 0x5EED])
    chosen = np.zeros(len(names), bool)
    carry = 0.0
    for stratum in np.unique(strata):
        candidates = generator.permutation(np.flatnonzero(strata[first] == stratum))
        if len(candidates) < 2:
            continue
        # what rounding takes from one stratum goes to the next, so that the whole has the share
        # asked for
        exact = share * len(candidates) + carry
        count = min(max(1, round(exact)), len(candidates) - 1)
        carry = exact - count if abs(exact - count) < 1 else 0.0
        chosen[candidates[:count]] = True
    if not chosen.any() and len(names) > 1:
        chosen[generator.integers(len(names))] = True
    taken: NDArray[np.bool_] = chosen[members]
    return taken


def subset(strata: NDArray[Any], count: int, seed: int) -> NDArray[np.bool_]:
    """Choose `count` of the samples; return bool [N], True for these.

    First one of each stratum [N], as far as that goes, then of each its share of the rest.
    """
    # shuffled within each stratum, so that evenly spaced positions are a stratified sample
    order = np.lexsort((np.random.default_rng([seed, 0xF3]).random(len(strata)), strata))
    first = np.flatnonzero(np.diff(strata[order], prepend=-1))[:count]
    others = np.delete(order, first)
    more = count - len(first)
    chosen = np.zeros(len(strata), bool)
    chosen[order[first]] = True
    chosen[others[(np.arange(more) * len(others)) // max(more, 1)]] = True
    return chosen


def fewer(name: str, strata: NDArray[Any], count: int, seed: int) -> NDArray[np.bool_]:
    """Return which training samples a task with `train_samples` keeps, as `subset` does.

    Raises DataError where there are fewer.
    """
    if count > len(strata):
        raise DataError(too_few(name, count, len(strata)))
    return subset(strata, count, seed)


def too_few(name: str, wanted: int, there: int) -> str:
    """Return what is wrong with a task that wants more training samples than there are."""
    return f"{name}: train_samples = {wanted}: there are {there} training samples"


def strata_of(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each sample its rarest class, [N]: the one that is in the fewest samples.

    present: [N, classes], which classes are in a sample.
    """
    frequency = present.sum(axis=0)
    rarest: NDArray[np.int64] = np.where(present, frequency, len(present) + 1).argmin(axis=1)
    return rarest


def merge_groups(groups: Sequence[str], digests: NDArray[Any]) -> list[str]:
    """Return the groups [N], joined wherever they have a duplicate in common.

    digests: [N, …], equal rows for duplicates. A joined group has the name of one of its parts.
    """
    _, first, digest = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(groups):
        return list(groups)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # a graph whose nodes are groups and digests, with an edge a sample: what hangs together is one
    _, group = np.unique(np.array(groups), return_inverse=True)
    count = len(groups)
    edges = (np.ones(count), (group, group.max() + 1 + digest.ravel()))
    nodes = int(group.max() + 1 + len(first))
    _, component = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    names: dict[int, str] = {}
    return [names.setdefault(int(component[one]), name) for one, name in zip(group, groups)]


def absent_classes(classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> list[DataFault]:
    """Return a fault for each class without a sample in a split.

    counts: of each split, the samples with each class.
    """
    return [
        DataFault("class", split, f"has no sample of {label}")
        for split in SPLITS
        for label, count in zip(classes, counts[split])
        if not count
    ]


def refuse_small(
    name: str, kind: Kind, classes: Sequence[str], sizes: Mapping[str, int], trained: Sequence[int]
) -> None:
    """Raise DataError for a split of fewer than two samples, or classes that cannot be learned.

    sizes: of each split. trained: training samples of each class. Classification needs one of each
    class. Segmentation needs two classes, since some may be rare.
    """
    for split in SPLITS:
        if sizes[split] < 2:
            raise DataError(
                f"{name}: the split {split} needs two images at least, and has {sizes[split]}; "
                f"where it has no folder of its own, it is a share of train "
                f"(`{'test_share' if split == 'test' else 'validation_share'}`)"
            )
    lacking = [label for label, count in zip(classes, trained) if not count]
    if lacking and kind == "classification":
        raise DataError(f"{name}: classes without a training sample: {some(lacking)}")
    if len(lacking) > len(classes) - 2:
        raise DataError(
            f"{name}: the training masks hold one class, and nothing of {some(lacking)}; masks "
            f"hold the indices of the classes, and {IGNORE} means ignore: where it marks an "
            "object, make it 1, with Pillow by `mask.point(lambda value: value & 1)`"
        )
