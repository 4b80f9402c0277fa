"""Learned release: a task reads the weights with the largest scores, of which a share is kept."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from acll.data.batches import normalised
from acll.methods.base import Before
from acll.methods.packing import Packing
from acll.networks.build import TaskNetwork, build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork, PerceptronNetwork
from acll.packing import packed_file
from acll.packing.layers import LARGEST_SHARE, layer_shares
from acll.packing.ownership import (
    commit,
    digest,
    empty,
    free,
    reading_ranks,
    starting_state,
    task_state_dict,
)
from acll.packing.prune import kept_count
from acll.search.retraining import Retraining, trial_runner
from acll.serving.export import export_task
from acll.serving.model import load
from acll.training.checkpoint import Checkpoint
from acll.training.distillation import distilled
from acll.training.evaluate import evaluated
from acll.training.learned import (
    LEAST_READ,
    READ_OF_EARLIER,
    Scored,
    release_epochs,
    release_learned,
    trained_share,
)
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, FitResult, fit
from acll.training.masking import (
    FEWEST,
    SAMPLE,
    LargestScores,
    MaskedNetwork,
    masked_state,
    masks_of,
    scores_of,
)
from acll.training.metrics import score
from acll.training.release import LAST_SHARE
from conftest import (
    batches,
    fit_config,
    kept_counts,
    killing,
    states_equal,
    tiny_task,
    usual_record,
)

CPU = torch.device("cpu")
PERCEPTRON = PerceptronNetwork(hidden=[8, 6], image_size=[4, 4], channels=3)
SMALL = BackboneNetwork(backbone="resnet_small", width=0.25)  # has normalisations
UNET = DecoderNetwork(decoder="unet", encoder="resnet_small", width=0.25)
CONFIG = fit_config(4, 0.02, 0)  # of release and retraining
SEEDS = 3, 4  # of release and retraining


def learner(task, spec=PERCEPTRON, seed=0):
    train, validation, header = task
    network = build(spec, header.kind, len(header.classes), seed)
    own = batches(header.kind, batch_size=3)
    return TaskLearner(network, train, validation, header, own, CPU)


def unlearned(spec=PERCEPTRON):
    kind = "segmentation" if isinstance(spec, DecoderNetwork) else "classification"
    whole = build(spec, kind, 2, 0, pretrained=False)
    shared = {name: whole.state_dict()[name] for name in partition(whole).shared}
    return empty(spec.model_dump(mode="json"), shared, "m", 0)


def small_task(name="a", **changes):
    return tiny_task(name, **({"size": 4, "samples": 12} | changes))


@dataclass(frozen=True)
class Dense:
    """A task after its training: its learner without scores, its state with them."""

    learner: TaskLearner
    scored: Scored
    state: dict
    score: float

    def taught(self, own, distill):
        """The learner that learns from the dense network, too, if `distill` says so."""
        teacher = self.scored.dense(self.learner)
        return distilled(own, teacher, self.state) if distill else own

    def released(self, kept, config=CONFIG, distill=False, checkpoint=None):
        first, _ = config.schedule.parts("gradual")
        return release_learned(
            self.learner,
            self.state,
            self.scored,
            kept,
            FitConfig(first, SEEDS[0]),
            lambda own: self.taught(own, distill),
            checkpoint,
        )

    def retrained(self, kept, config=CONFIG, distill=False, checkpoints=(None, None)):
        """What the retraining ended with, and of which learner."""
        state = self.released(kept, config, distill, checkpoints[0])
        _, second = config.schedule.parts("gradual")
        own = self.taught(self.scored.learner(self.learner, kept), distill)
        masks = dict(self.scored.free)
        return fit(own, state, FitConfig(second, SEEDS[1]), masks, checkpoints[1]), own


def dense(task=None, packed=None, spec=PERCEPTRON, reuse="chosen", config=CONFIG, seed=0):
    """A task that was trained on top of those of a network."""
    packed = packed or unlearned(spec)
    own = learner(task or small_task(), spec, seed)
    first = starting_state(packed, own.info.kind, own.network.state_dict())
    rule = Packing(ratio=0.5, reuse=reuse).training_rule()
    start = rule.begin([own], first, Before(packed, {}, seed))
    result = fit(start.learner, start.state, config, start.masks)
    scored = Scored(free(packed, own.info.kind), reuse)
    return Dense(own, scored, result.state, result.score)


def learned(packed, task, ratio, spec=PERCEPTRON, reuse="chosen", config=CONFIG):
    """(the network with one more task, what its retraining ended with, masks of what it keeps)"""
    own = dense(task, packed, spec, reuse, config, len(packed.tasks))
    result, _ = own.retrained(1 - ratio, config)
    state, keep = own.scored.finished(result.state)
    record = usual_record(own.learner.info, result.score, (), {"ratio": ratio}, packed.width)
    return commit(packed, record, state, keep, reuse), result, keep


def plain(packed, name, spec):
    """The network of a task as it is committed, without scores."""
    record = packed.record(name)
    network = build(spec, record.kind, len(record.classes), 99, pretrained=False)
    network.load_state_dict(task_state_dict(packed, name))
    return network.eval()


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def read_counts(scored, kept):
    """How many weights of each tensor are read: of free ones, and of all."""
    own = kept_counts(counts(scored.free), 1 - kept)
    least = 1.0 if scored.reuse == "all" else READ_OF_EARLIER
    of_earlier = 1 - max(kept, least)
    total = {
        name: own[name] + kept_count(int((~mask).sum()), of_earlier)
        for name, mask in scored.free.items()
    }
    return own, total


def assert_reads(state, scored, kept):
    own, total = read_counts(scored, kept)
    masks = masks_of(state)
    assert counts(masks) == total
    assert counts({name: mask & scored.free[name] for name, mask in masks.items()}) == own


# --- what is chosen


@given(
    free_counts=st.lists(st.integers(0, 30) | st.integers(0, 10**7), max_size=12),
    share=st.sampled_from([0.001, 0.1, 0.5, 1.0]) | st.floats(1e-6, 1),
)
@example([1, 1, 5, 695_027, 754_622], 0.5 - 1e-6)
@example([3, 6, 754_622], math.nextafter(0.5, 0))
def test_layers_share_what_is_kept_and_the_smaller_one_keeps_the_larger_share(free_counts, share):
    free_of = dict(enumerate(sorted(free_counts)))
    shares = layer_shares(free_of, share)
    kept = [shares[name] * count for name, count in free_of.items()]
    assert math.isclose(sum(kept), share * sum(free_counts), rel_tol=1e-9)
    assert all(0 < own <= max(share, LARGEST_SHARE) for own in shares.values())
    assert kept == sorted(kept)
    below = [(shares[name], count) for name, count in free_of.items() if count]
    for (one, smaller), (other, larger) in pairwise(below):
        assert one >= other
        at_bound = one >= LARGEST_SHARE or math.isclose(one, LARGEST_SHARE)
        if not at_bound:  # then both keep as many times their roots
            assert math.isclose(one * math.sqrt(smaller), other * math.sqrt(larger), rel_tol=1e-9)


def test_shares_of_layers_are_known():
    assert layer_shares({"stem": 100, "head": 10_000}, 0.1) == {"stem": 0.5, "head": 0.096}
    assert layer_shares({"a": 400, "b": 10_000, "c": 0}, 0.05) == pytest.approx(
        {"a": 520 / 120 / 20, "b": 520 / 120 / 100, "c": 0.05}
    )
    assert layer_shares({"stem": 100, "head": 10_000}, 0.7) == {"stem": 0.7, "head": 0.7}


@given(
    scores=st.lists(st.integers(-3, 3), min_size=1, max_size=30),  # so small that some are equal
    free_part=st.sampled_from(["none", "some", "all"]),
    share=st.sampled_from([0.004, 0.1, 0.5, 0.9, 1.0]) | st.floats(1e-6, 1),
    earlier=st.sampled_from([0.0, 0.3, 1.0]),
    exact=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_of_free_weights_and_of_those_of_earlier_tasks_the_share_with_the_largest_scores_is_chosen(
    scores, free_part, share, earlier, exact, seed
):
    drawn = torch.rand(len(scores), generator=torch.Generator().manual_seed(seed))
    part = {"none": drawn < 0, "some": drawn < 0.5, "all": drawn >= 0}[free_part]
    worth = torch.tensor(scores).abs().float()
    choose = LargestScores(share, {"w": part.view(1, -1)}, earlier)
    chosen = choose("w", worth, exact)
    assert (chosen.dtype, chosen.shape) == (torch.bool, worth.shape)
    for group, own in ((part, share), (~part, max(share, earlier))):
        size = int(group.sum())
        count = kept_count(size, 1 - own)
        assert int((chosen & group).sum()) == count
        if 0 < count < size:
            assert worth[chosen & group].min() >= worth[~chosen & group].max()
    assert torch.equal(choose("w", worth, exact), chosen)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.05, LAST_SHARE, 1e-5])
@pytest.mark.parametrize("free_part", [None, 0.3, 1.0])
def test_of_a_large_layer_about_the_share_is_chosen_while_it_is_trained(share, free_part):
    size = 20 * SAMPLE
    generator = torch.Generator().manual_seed(0)
    worth = torch.rand(size, generator=generator)
    free_ones = None
    if free_part is not None:
        free_ones = torch.rand(size, generator=generator) < free_part
    choose = LargestScores(share, None if free_ones is None else {"w": free_ones})
    about, exactly = (choose("w", worth, exact) for exact in (False, True))
    groups = [torch.ones(size, dtype=torch.bool)]
    if free_ones is not None:
        groups = [group for group in (free_ones, ~free_ones) if bool(group.any())]
    for group in groups:
        total, count = int(group.sum()), int((about & group).sum())
        expected = kept_count(total, 1 - share)
        assert int((exactly & group).sum()) == expected
        # four standard deviations of what a limit of SAMPLE weights leaves above it
        spread = 4 * math.sqrt(share / SAMPLE) * total
        of_sample = FEWEST <= share * SAMPLE < SAMPLE
        assert count == pytest.approx(expected, abs=spread if of_sample else 0)
        if 0 < count < total:
            assert worth[about & group].min() >= worth[~about & group].max()


# --- a whole task


@given(
    hidden=st.lists(st.integers(1, 8), min_size=1, max_size=2),
    ratios=st.lists(st.sampled_from([0.0, 0.3, 0.9, 0.99]), min_size=2, max_size=3),
    reuse=st.sampled_from(["chosen", "all"]),
    optimizer=st.sampled_from(["sgd", "adamw"]),
)
@settings(max_examples=10, deadline=None)
def test_a_task_keeps_what_its_ratio_asks_of_each_layer_and_changes_nothing_of_earlier_ones(
    tmp_path_factory, hidden, ratios, reuse, optimizer
):
    path = tmp_path_factory.mktemp("files") / "network.safetensors"
    spec = PerceptronNetwork(hidden=hidden, image_size=[4, 4], channels=3)
    config = fit_config(2, 0.05, 1, optimizer=optimizer, weight_decay=0.3, momentum=0.9)
    packed, when_learned = unlearned(spec), {}
    for position, ratio in enumerate(ratios, 1):
        before, name = packed, f"t{position}"
        packed, result, keep = learned(before, small_task(name), ratio, spec, reuse, config)
        state = when_learned[name] = task_state_dict(packed, name)
        masks = masks_of(result.state)
        was_free = {layer: owner == 0 for layer, owner in before.owner.items()}
        asked = kept_counts(counts(was_free), ratio)
        for layer, owner in packed.owner.items():
            earlier = ~was_free[layer]
            assert torch.equal(owner == position, keep[layer])
            assert not bool((keep[layer] & earlier).any())
            assert int(keep[layer].sum()) == asked[layer]
            read = masks[layer] & earlier
            size = int(earlier.sum())
            count = size if reuse == "all" else kept_count(size, min(ratio, 1 - READ_OF_EARLIER))
            assert int(read.sum()) == count
            assert torch.equal(state[layer][read], before.shared[layer][read])
            assert bool((state[layer][~keep[layer] & ~read] == 0).all())
            unread = packed.unread.get(name, {}).get(layer, torch.zeros_like(read))
            assert torch.equal(unread, earlier & ~read & (before.shared[layer] != 0))
        assert states_equal(state, masked_state(result.state))
        packed_file.write_packed(path, packed)
        opened = packed_file.open_packed(path)
        for task, expected in when_learned.items():
            assert states_equal(task_state_dict(packed, task), expected)
            assert states_equal(opened.state(task), expected)
            assert packed.record(task).digest == digest(expected)


@pytest.mark.parametrize("kinds", ["cs", "sc", "ss"])
def test_both_kinds_of_tasks_in_one_network_and_what_is_validated_loaded_and_exported_is_one(
    tmp_path, kinds
):
    words = {"c": "classification", "s": "segmentation"}
    packed, path, states = unlearned(UNET), tmp_path / "network.safetensors", {}
    config = fit_config(2, 0.01, 1)
    for index, letter in enumerate(kinds):
        task = tiny_task(f"{letter}{index}", words[letter], samples=8)
        packed, result, _ = learned(packed, task, 0.8, UNET, config=config)
        name = task[2].name
        states[name] = task_state_dict(packed, name)
        seen = evaluated(plain(packed, name, UNET), task[1], task[2], CPU)
        assert score(seen) == result.score == packed.record(name).validation_score
    packed_file.write_packed(path, packed)
    opened = packed_file.open_packed(path)
    for name, state in states.items():
        assert states_equal(load(path).network(name).state_dict(), state)
        export_task(opened, name, tmp_path / f"{name}.safetensors", "float32", None)
        alone = load(tmp_path / f"{name}.safetensors").network(name)
        assert states_equal(alone.state_dict(), state)


@pytest.mark.parametrize(
    ("spec", "kind", "size"),
    [(PERCEPTRON, "classification", 4), (SMALL, "classification", 16), (UNET, "segmentation", 16)],
)
def test_what_is_committed_gives_the_logits_of_the_network_with_scores(spec, kind, size):
    packed, _, _ = learned(unlearned(spec), tiny_task("a", kind, size), 0.7, spec)
    task = tiny_task("b", kind, size, classes=4)
    own = dense(task, packed, spec)
    result, with_scores = own.retrained(0.3)
    with_scores.network.load_state_dict(result.state)
    images = normalised(task[1].images, task[2], CPU)
    with torch.no_grad():
        logits = with_scores.network.eval()(images)
        assert states_equal(masks_of(with_scores.network.state_dict()), masks_of(result.state))
        state, keep = own.scored.finished(result.state)
        record = usual_record(task[2], result.score, (), {}, packed.width)
        after = commit(packed, record, state, keep, "chosen")
        assert torch.equal(plain(after, "b", spec)(images), logits)


def test_a_task_without_a_free_weight_learns_with_what_earlier_ones_own():
    packed, _, _ = learned(unlearned(), small_task("a"), 0.0)
    after, result, keep = learned(packed, small_task("b"), 0.5)
    assert sum(counts(keep).values()) == after.record("b").owned == 0
    for mask in masks_of(result.state).values():
        assert int(mask.sum()) == kept_count(mask.numel(), 0.5)
    assert states_equal(task_state_dict(after, "a"), task_state_dict(packed, "a"))


# --- scores


def test_scores_are_drawn_from_the_seed_and_learned():
    packed, own = unlearned(SMALL), learner(tiny_task("a"), SMALL)
    first = starting_state(packed, "classification", own.network.state_dict())
    scored = Scored(free(packed, "classification"), "all")
    ranks = reading_ranks(packed, "classification")
    one, same, other = (scored.begin(own, first, ranks, seed) for seed in (1, 1, 2))
    assert states_equal(one[1], same[1])
    for name, value in scores_of(one[1]).items():
        assert not torch.equal(value, scores_of(other[1])[name])
    after = fit(one[0], one[1], CONFIG, scored.free).state
    assert_reads(after, scored, trained_share(own.network))
    for name, value in scores_of(after).items():
        assert not torch.equal(value, scores_of(one[1])[name])


def rises_with(worth, size):
    """Whether the larger of two sizes is never worth less."""
    return torch.equal(worth[size.argsort()], worth.sort().values)


def test_a_task_begins_with_the_largest_weights_of_earlier_ones():
    packed, _, _ = learned(unlearned(SMALL), tiny_task("a"), 0.5, SMALL)
    own = learner(tiny_task("b"), SMALL)
    first = starting_state(packed, "classification", own.network.state_dict())
    scored = Scored(free(packed, "classification"), "chosen")
    ranks = reading_ranks(packed, "classification")
    which, state = scored.begin(own, first, ranks, 0)
    scores = scores_of(state)
    of_none = Scored({name: mask | True for name, mask in scored.free.items()}, "chosen")
    drawn = scores_of(of_none.begin(own, first, ranks, 0)[1])
    for name, mask in scored.free.items():
        earlier, values = ~mask.flatten(), first[name].flatten()
        assert torch.equal(scores[name][~earlier], drawn[name][~earlier])
        worth, size = scores[name][earlier].abs(), values[earlier].abs()
        assert rises_with(worth, size)
        assert worth.max() == pytest.approx(first[name][0].numel() ** -0.5)
    which.network.load_state_dict(state)
    which.network.make_masks()
    for name, mask in masks_of(which.network.state_dict()).items():
        earlier, size = ~scored.free[name], first[name].abs()
        read, left = mask & earlier, ~mask & earlier
        assert size[read].min() >= size[left].max() * (1 - 1e-6)  # scores are rounded


def test_of_weights_of_earlier_tasks_those_that_were_read_lately_come_first():
    packed, _, _ = learned(unlearned(SMALL), tiny_task("a"), 0.5, SMALL)
    for name in ("b", "c"):
        packed, _, _ = learned(packed, tiny_task(name), 0.5, SMALL)
    read = {task: task_state_dict(packed, task) for task in ("a", "b", "c")}
    own = learner(tiny_task("d"), SMALL)
    first = starting_state(packed, "classification", own.network.state_dict())
    scored = Scored(free(packed, "classification"), "chosen")
    ranks = reading_ranks(packed, "classification")
    scores, orders = scores_of(scored.begin(own, first, ranks, 0)[1]), set()
    for name, mask in scored.free.items():
        worth, size = scores[name].view_as(mask).abs(), first[name].abs()
        # whether c, b and a read it: as digits of a number, of which the first counts most
        order = sum(
            digit * (read[task][name] != 0) for task, digit in (("c", 4), ("b", 2), ("a", 1))
        )
        known = ~mask & (size > 0)
        orders |= set(order[known].tolist())
        for number in range(8):
            own_group, later = known & (order == number), known & (order > number)
            assert rises_with(worth[own_group], size[own_group])
            if bool(own_group.any() and later.any()):
                assert worth[own_group].max() <= worth[later].min()
    assert len(orders) > 4


def test_each_free_weight_has_a_score_that_can_move_wherever_it_starts(tmp_path):
    """A score of 0 has no gradient, so that its weight could not be chosen or left out."""
    path = tmp_path / "weights.safetensors"
    save_file(build(SMALL, "classification", 2, 77).encoder.state_dict(), path)
    spec = SMALL.model_copy(update={"weights": str(path)})
    packed, _, _ = learned(unlearned(spec), tiny_task("a"), 0.5, spec)
    own = learner(tiny_task("b"), spec)
    fresh, masks = own.network.state_dict(), free(packed, "classification")
    ranks = reading_ranks(packed, "classification")
    for zero in (False, True):
        first = starting_state(packed, "classification", fresh, start_zero=zero)
        scores = scores_of(Scored(masks, "chosen").begin(own, first, ranks, 0)[1])
        for name, value in scores.items():
            assert bool((value != 0).all())
            if not zero:  # the largest of the weights that are given are read first
                assert torch.equal(value, first[name].flatten())


def test_a_weight_that_is_not_read_comes_back_when_the_loss_falls_with_it():
    layer = torch.nn.Linear(4, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 1, 0.1, 0.1], [0.1, 0.1, 1, 1]])
    network = TaskNetwork(
        torch.nn.Sequential(torch.nn.Flatten(), layer), None, torch.nn.Identity(), 1
    )
    name, labels = "encoder.1.weight", torch.arange(60) % 2
    images = torch.randint(0, 256, (60, 1, 2, 2), dtype=torch.uint8)
    images[labels == 0, :, 1] //= 4
    images[labels == 1, :, 0] //= 4
    train, _, header = tiny_task("t", classes=2, size=2)
    split = replace(train, images=images, labels=labels)
    header = replace(header, mean=(0.0,), std=(1.0,))
    worst = torch.tensor([[0.1, 0.1, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]])
    masked = MaskedNetwork(network, {name: worst}, LargestScores(0.5))
    own = TaskLearner(masked, split, split, header, batches(batch_size=3), CPU)
    fixed = {name: torch.zeros(2, 4, dtype=torch.bool)}
    first = masked.start(network.state_dict())
    state = fit(own, first, fit_config(20, 0.01, 1, weight_decay=0.0), fixed).state
    assert masked_state(state)[name].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


# --- masks while it is trained


def test_masks_are_made_in_every_step_and_exactly_for_each_validation(monkeypatch):
    task = small_task(samples=9)  # three batches an epoch
    packed, own = unlearned(), learner(task)
    first = starting_state(packed, "classification", own.network.state_dict())
    ranks = reading_ranks(packed, "classification")
    which, state = Scored(free(packed, "classification"), "all").begin(own, first, ranks, 0)
    events, real, forward = [], LargestScores.__call__, MaskedNetwork.forward

    def chosen(self, name, worth, exact):
        if name == next(iter(packed.owner)):
            events.append("exact" if exact else "about")
        return real(self, name, worth, exact)

    def passes(self, images):
        events.append("step" if self.training else "validation")
        return forward(self, images)

    monkeypatch.setattr(LargestScores, "__call__", chosen)
    monkeypatch.setattr(MaskedNetwork, "forward", passes)
    fit(which, state, fit_config(2, 0.01, 0), None)
    assert events == [*["step", "about"] * 3, "validation", "exact"] * 2

    which.network.eval()
    events.clear()
    for _ in range(3):  # batches of one evaluation
        which.network(torch.zeros(1, 3, 4, 4))
    assert events == ["validation", "exact", "validation", "validation"]


# --- release


def test_of_given_weights_a_task_reads_all_while_it_is_trained(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(build(SMALL, "classification", 2, 77).encoder.state_dict(), path)
    spec = SMALL.model_copy(update={"weights": str(path)})
    assert trained_share(learner(tiny_task("a"), spec).network) == 1.0
    own = learner(tiny_task("a"), spec)
    scored = Scored(free(unlearned(spec), "classification"), "all")
    ranks = reading_ranks(unlearned(spec), "classification")
    which, state = scored.begin(own, own.network.state_dict(), ranks, 0)
    fitted = fit(which, state, fit_config(1, 0.01, 0), dict(scored.free))
    assert all(bool(mask.all()) for mask in masks_of(fitted.state).values())


@pytest.mark.parametrize("width", [0.25, 0.35, 0.5, 1.0])
def test_a_task_reads_a_tenth_while_it_is_trained_or_what_it_may_need(width):
    spec = SMALL.model_copy(update={"width": width})
    network = learner(tiny_task("a"), spec).network
    weights = sum(network.state_dict()[name].numel() for name in partition(network).shared)
    assert (27 / math.sqrt(weights) > LEAST_READ) == (width < 0.5)
    assert trained_share(network) == max(LEAST_READ, 27 / math.sqrt(weights))


def test_a_release_takes_as_long_as_its_share_is_far():
    first = LEAST_READ
    assert [release_epochs(6, first, kept) for kept in (first, 0.7, 1.0)] == [0, 0, 0]
    assert release_epochs(6, first, 1 - (1 - first)) == 0  # which is a little less
    assert release_epochs(6, first, LAST_SHARE) == pytest.approx(6)
    assert release_epochs(6, first, math.sqrt(first * LAST_SHARE)) == pytest.approx(3)
    assert release_epochs(6, 1.0, math.sqrt(LAST_SHARE)) == pytest.approx(3)
    assert release_epochs(6, 1.0, 0.9) > 0  # where all was read


@given(
    one=st.floats(1e-9, 1),
    other=st.floats(1e-9, 1),
    epochs=st.floats(0.1, 100),
    first=st.sampled_from([LEAST_READ, 1.0]),
)
@settings(max_examples=100, deadline=None)
def test_a_smaller_share_takes_a_longer_release_and_none_takes_more_than_there_are(
    one, other, epochs, first
):
    few, many = (release_epochs(epochs, first, kept) for kept in sorted((one, other)))
    assert 0 <= many <= few <= epochs * (1 + 1e-9)


@pytest.mark.parametrize(
    ("kept", "reuse"),
    [
        *((kept, "chosen") for kept in (1.0, 0.7, None, 0.3, 0.04, LAST_SHARE, 0.001)),
        *((kept, "all") for kept in (None, 0.04)),
    ],
)
def test_the_share_shrinks_from_step_to_step_and_ends_at_what_is_kept(monkeypatch, kept, reuse):
    """kept: None: the share of the training."""
    packed, _, _ = learned(unlearned(SMALL), tiny_task("a"), 0.5, SMALL)
    own = dense(tiny_task("b"), packed, SMALL, reuse)
    first = trained_share(own.learner.network)
    kept = kept or first
    shares, real = [], LargestScores.__call__

    def seen(self, *given):
        shares.append(self.share)
        return real(self, *given)

    monkeypatch.setattr(LargestScores, "__call__", seen)
    state = own.released(kept)
    assert_reads(state, own.scored, kept)
    assert shares[-1] == kept
    if kept >= first:  # nothing is trained
        assert set(shares) == {kept}
        unlike = {name for name, value in state.items() if not torch.equal(value, own.state[name])}
        assert all(name.startswith("masks.") for name in unlike)
    else:
        assert shares == sorted(shares, reverse=True)
        assert kept <= shares[0] < first
    for name, mask in own.scored.free.items():
        assert torch.equal(state[name][~mask], packed.shared[name][~mask])


def test_a_training_step_of_the_release_has_its_own_share(monkeypatch):
    own = dense(small_task(samples=30))  # 10 batches an epoch
    shares, real = [], LargestScores.__call__
    monkeypatch.setattr(
        LargestScores,
        "__call__",
        lambda self, *given: (shares.append(self.share), real(self, *given))[1],
    )
    own.released(LAST_SHARE, fit_config(4, 0.01, 0))  # two epochs of release
    first = trained_share(own.learner.network)
    factor = (LAST_SHARE / first) ** (1 / 20)  # of each step
    made = [*range(1, 11), 10, *range(11, 21), 20, 20]  # each epoch's last is of its validation
    tensors = len(own.scored.free)
    expected = [first * factor**step for step in made for _ in range(tensors)]
    assert shares == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spec", "distill", "part", "writes"),
    [
        *((PERCEPTRON, False, *moment) for moment in [(0, 1), (0, 2), (0, 3), (1, 1), (1, 3)]),
        *((PERCEPTRON, True, *moment) for moment in [(0, 3), (1, 1)]),
        *((SMALL, True, *moment) for moment in [(0, 2), (1, 1)]),
    ],
)
def test_what_was_killed_goes_on_to_the_same_bits(tmp_path, spec, distill, part, writes):
    task = small_task(size=4 if spec is PERCEPTRON else 8, samples=6)
    config = fit_config(6, 0.02, 0, optimizer="sgd")  # three epochs of each part
    own = dense(task, spec=spec, config=fit_config(1, 0.02, 0))
    expected, _ = own.retrained(LAST_SHARE, config, distill)

    def again(kind):
        known = replace(own, learner=learner(task, spec, seed=1))
        paths = tmp_path / "release", tmp_path / "retrain"
        kept = [Checkpoint(path, "") for path in paths]
        if kind == "killed":
            kept[part] = killing(paths[part], "", writes)
        return known.retrained(LAST_SHARE, config, distill, kept)[0]

    with pytest.raises(KeyboardInterrupt):
        again("killed")
    resumed = again("resumed")
    assert states_equal(resumed.state, expected.state)
    assert resumed.history == expected.history


def test_a_checkpoint_of_a_release_to_another_share_is_not_taken(tmp_path, capsys):
    own, checkpoint = dense(), Checkpoint(tmp_path / "c", "")
    for kept in (0.01, 0.02, 0.02 - 1e-9):
        expected = own.released(kept)
        capsys.readouterr()
        assert states_equal(own.released(kept, checkpoint=checkpoint), expected)
        assert "goes on" not in capsys.readouterr().out
    own.released(kept, checkpoint=checkpoint)
    assert "goes on" in capsys.readouterr().out


# --- trials of a search


def trials(own, distill=False, on_held=None, config=CONFIG, checkpoints=(None, None)):
    retraining = Retraining(
        own.learner,
        config.schedule,
        own.state,
        own.scored,
        "gradual",
        distill,
        SEEDS,
        checkpoints,
    )
    return retraining, trial_runner(retraining, on_held)


@pytest.mark.parametrize(
    ("distill", "reuse"), [(False, "chosen"), (True, "chosen"), (False, "all")]
)
@pytest.mark.parametrize("kept", [0.9, 0.3, 0.01])
def test_a_trial_that_holds_hands_over_what_release_and_retraining_come_to(distill, reuse, kept):
    packed, _, _ = learned(unlearned(), small_task("a"), 0.5)
    own, held = dense(small_task("b"), packed, reuse=reuse), []
    _, run_trial = trials(own, distill, lambda *result: held.append(result))
    run_trial(kept, 2.0)  # nothing reaches that
    assert held == []
    measured = run_trial(kept, 0.0)
    ((share, result, keep),) = held
    # a choice has the ratio, of which the steps make the kept share anew
    expected, _ = dense(small_task("b"), packed, reuse=reuse).retrained(
        1 - (1 - kept), CONFIG, distill
    )
    state, masks = own.scored.finished(expected.state)
    assert isinstance(result, FitResult)
    assert states_equal(result.state, state)
    assert states_equal(keep, masks)
    assert (share, result.score, result.epoch) == (kept, expected.score, expected.epoch)
    assert (measured.score, measured.epochs_run) == (expected.score, 2)


def test_the_dense_network_is_a_trial_that_hands_nothing_over():
    """It is there; a larger share that is chosen instead of it has to be handed over."""
    own, held = dense(spec=SMALL, task=tiny_task("a")), []
    share = trained_share(own.learner.network)
    _, run_trial = trials(own, False, lambda *result: held.append(result))
    assert run_trial(share, 0.0).epochs_run == 0
    assert held == []
    run_trial(2 * share, 0.0)
    assert [kept for kept, _, _ in held] == [2 * share]


@pytest.mark.parametrize("distill", [False, True])
def test_a_trial_does_not_depend_on_those_before_it(distill):
    own, held = dense(spec=SMALL, task=tiny_task("a")), []
    before = {name: value.clone() for name, value in own.state.items()}
    _, run_trial = trials(own, distill, lambda *result: held.append(result))
    one, smaller, again = (run_trial(kept, 0.0) for kept in (0.3, 0.02, 0.3))
    assert one == again
    assert states_equal(held[0][1].state, held[2][1].state)
    assert states_equal(held[0][2], held[2][2])
    assert states_equal(own.state, before)
    _, alone = trials(dense(spec=SMALL, task=tiny_task("a")), distill)
    assert alone(0.02, 0.0) == smaller


@pytest.mark.parametrize(
    ("threshold", "writes"), [(0.0, (1, 9)), (0.0, (3, 9)), (0.0, (9, 1)), (2.0, (9, 2))]
)
def test_a_trial_that_is_killed_goes_on_to_the_same_result(tmp_path, threshold, writes):
    """One that holds, and one that ends after half of its validations."""
    own, config = dense(), fit_config(8, 0.02, 0)

    def trial(*checkpoints):
        held = []
        _, run_trial = trials(own, True, lambda *result: held.append(result), config, checkpoints)
        return run_trial(LAST_SHARE, threshold), held

    expected, held = trial(None, None)
    paths = tmp_path / "release", tmp_path / "retrain"
    with pytest.raises(KeyboardInterrupt):
        trial(*(killing(path, "", count) for path, count in zip(paths, writes, strict=True)))
    got, held_again = trial(*(Checkpoint(path, "") for path in paths))
    assert got == expected
    assert len(held_again) == len(held) == (threshold == 0)
    for one, other in zip(held, held_again, strict=True):
        assert states_equal(one[1].state, other[1].state)
        assert states_equal(one[2], other[2])


def test_the_reference_is_the_score_of_the_dense_network():
    own = dense(small_task(samples=40))
    _, run_trial = trials(own)
    got = run_trial(1.0, None)
    assert (got.score, got.epochs_run) == (own.score, 0)


def test_trials_are_charged_for_the_release_that_they_make(monkeypatch):
    own = dense(small_task(samples=21))  # 7 batches an epoch
    retraining, run_trial = trials(own, config=fit_config(8, 0.02, 0))
    steps, real = [], MaskedNetwork.forward

    def forward(self, images):
        steps.append(self.training)
        return real(self, images)

    monkeypatch.setattr(MaskedNetwork, "forward", forward)
    for kept in (0.8, 0.49, 0.2, LAST_SHARE):
        steps.clear()
        run_trial(kept, 0.0)
        assert sum(steps) - 4 * 7 == pytest.approx(7 * retraining.release_epochs(kept))


def test_a_trial_that_diverges_has_failed_and_ends_no_search():
    own = dense(spec=SMALL, task=tiny_task("a"))
    wild = fit_config(8, 1e30, 0, optimizer="sgd")
    _, run_trial = trials(own, config=wild)
    for kept in (0.9, 0.3, 0.01, 0.3):
        got = run_trial(kept, 0.5)
        assert (got.score, got.standard_error, got.diverged) == (0, 0, True)
        assert got.epochs_run == (0 if kept < trained_share(own.learner.network) else 1)
