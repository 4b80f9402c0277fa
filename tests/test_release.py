"""Gradual release: masks only shrink, their counts are exact, what was released or is frozen stays
so. And distillation, with whose loss what is left can be trained."""

import math
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from acll.networks.build import build
from acll.networks.channels import ChannelGraph
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork, PerceptronNetwork
from acll.packing.ownership import PackingError
from acll.packing.prune import keep_masks, kept_count
from acll.training import loop
from acll.training.checkpoint import Checkpoint
from acll.training.distillation import distilled
from acll.training.learner import TaskLearner
from acll.training.loop import TrainingError, fit
from acll.training.release import LAST_SHARE, STAGES, Pruning, ReleasePath, release
from acll.training.settings import Schedule, Training
from conftest import batches, fit_config, states_equal, tiny_task

CPU = torch.device("cpu")
PROPERTY = settings(max_examples=25, deadline=None)
SCOPES = ("layer", "global", "channel")
OPTIMIZERS = ("sgd", "adamw")
BATCHES = 4  # in an epoch of `learner`


class Chained:
    """Of layers "a", "b", "c", each of which reads the one before: which weights read nothing."""

    layers = MappingProxyType({})

    def idle(self, silent):
        return {
            after: silent[before].expand(len(silent[after]), -1)
            for before, after in pairwise("abc")
        }


def layers(width, seed, share=0.7):
    """Three layers with random weights, and masks of those that are free: a share, at random."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(2, width, width, 2, generator=generator) for _ in "abc"]
    network = nn.ParameterDict(
        {name: nn.Parameter(values[0] - 0.5) for name, values in zip("abc", drawn)}
    )
    return network, {name: values[1] < share for name, values in zip("abc", drawn)}


def learner(spec=None, size=4):
    """Four batches of small images, and a perceptron or what `spec` says."""
    train, validation, header = tiny_task("a", samples=12, size=size)
    spec = spec or PerceptronNetwork(hidden=[6, 5], image_size=[4, 4], channels=3)
    network = build(spec, "classification", len(header.classes), 0)
    return TaskLearner(network, train, validation, header, batches(batch_size=3), CPU)


def start(which):
    return {name: value.clone() for name, value in which.network.state_dict().items()}


def free_of(which, share=0.7):
    """Masks of the free weights: this share of them, at random."""
    state, generator = which.network.state_dict(), torch.Generator().manual_seed(0)
    return {
        name: torch.rand(state[name].shape, generator=generator) < share
        for name in partition(which.network).shared
    }


def pruning_of(which, free, scope="global"):
    channels = ChannelGraph(which.network, which.some_images()) if scope == "channel" else None
    return Pruning(free, scope, channels)


def path_config(epochs, rate, seed, **training):
    """A training at one learning rate, as the path of a release has it."""
    config = fit_config(epochs, rate, seed, **training)
    return replace(config, schedule=config.schedule.model_copy(update={"constant": True}))


def count(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def within(inner, outer):
    return not any(bool((mask & ~outer[name]).any()) for name, mask in inner.items())


# --- stages


@given(
    width=st.integers(1, 5),
    steps=st.floats(0.5, 60),
    scope=st.sampled_from(SCOPES),
    share=st.sampled_from([0.0, 0.7, 1.0]),
    seed=st.integers(0, 99),
)
@PROPERTY
def test_masks_only_shrink_and_their_counts_are_exact_at_every_stage(
    width, steps, scope, share, seed
):
    network, free = layers(width, seed, share)
    first = {name: value.detach().clone() for name, value in network.items()}
    channels = Chained() if scope == "channel" else None
    path = ReleasePath(Pruning(free, scope, channels), steps)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(seed)
    for step in range(math.ceil(steps) + 1):
        before, stage = path.keep, path.stage
        if not path.advance(step, network, optimizer):
            assert path.keep is before
            continue
        keep = path.keep
        assert within(keep, before)
        assert_counts(keep, free, 1 - LAST_SHARE ** (path.stage / STAGES), scope)
        if scope == "channel" and path.stage == stage + 1:
            assert_whole_channels(keep, before, free)
        for name, value in network.items():
            assert bool((value[free[name] & ~keep[name]] == 0).all())
            assert torch.equal(value[~free[name]], first[name][~free[name]])
        with torch.no_grad():  # what is kept is trained on, and its order changes
            for name, value in network.items():
                value += keep[name] * torch.randn(value.shape, generator=generator)
    assert path.stage >= STAGES


def assert_counts(keep, free, ratio, scope):
    if scope == "layer":
        for name, mask in free.items():
            assert count({"": keep[name]}) == kept_count(count({"": mask}), ratio)
    elif scope == "global":
        assert count(keep) == kept_count(count(free), ratio)
    else:
        assert count(keep) <= kept_count(count(free), ratio)


def assert_whole_channels(keep, before, free):
    """A channel keeps all that it had, but what reads nothing; or it keeps nothing."""
    silent = {name: ~(mask | ~free[name]).flatten(1).any(dim=1) for name, mask in keep.items()}
    idle = Chained().idle(silent)
    for name, mask in keep.items():
        read = before[name]
        if name in idle:
            read = read & ~idle[name][:, :, None]
        for own, all_of_it in zip(mask, read):
            assert not bool(own.any()) or torch.equal(own, all_of_it)


@given(steps=st.integers(1, 500))
@PROPERTY
def test_stages_are_spread_evenly_over_the_steps(steps):
    network, free = layers(1, 0)
    path = ReleasePath(Pruning(free, "global"), steps)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    begins = [step for step in range(steps) if path.advance(step, network, optimizer)]
    assert begins[0] == 0
    distances = [after - before for before, after in pairwise([*begins, steps])]
    assert max(distances) - min(distances) <= 1


@given(st.floats(1e-17, 1), st.floats(1e-17, 1), st.floats(0.1, 500))
@PROPERTY
def test_a_smaller_share_leaves_the_path_later_and_after_the_stages_that_keep_more(
    one, other, steps
):
    path = ReleasePath(Pruning({}, "global"), steps)
    few, many = sorted((one, other))
    assert path.step_of(many) <= path.step_of(few)
    assert path.step_of(1.0) == 0
    assert path.step_of(LAST_SHARE) == path.step_of(LAST_SHARE / 9) == round(steps)
    for stage in (1, 7, 13):
        share = LAST_SHARE ** (stage / STAGES)
        assert path.step_of(share) == round(stage * steps / STAGES)
        assert path.step_of(1 - (1 - share)) == path.step_of(share)
        assert path.step_of(share * 1.001) == round((stage - 1) * steps / STAGES)


def test_what_is_released_is_the_smallest_of_that_moment_and_comes_back_no_more():
    network = nn.ParameterDict({"a": nn.Parameter(torch.arange(1.0, 11))})
    path = ReleasePath(Pruning({"a": torch.ones(10, dtype=torch.bool)}, "global"), 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    path.advance(0, network, optimizer)  # six stages at once: ⌊10 · 0.005^(6/20)⌋ = 2
    assert path.keep["a"].tolist() == [False] * 8 + [True, True]
    network = nn.ParameterDict({"a": nn.Parameter(torch.arange(1.0, 11))})
    path = ReleasePath(Pruning({"a": torch.ones(10, dtype=torch.bool)}, "global"), 20)
    for step in range(4):  # ⌊10 · 0.005^(4/20)⌋ = 3
        path.advance(step, network, optimizer)
        if step == 0:
            with torch.no_grad():
                network["a"].copy_(torch.tensor([0, 0, 0, 5.0, 6, 7, 3, 2, 1, 8]))
    assert path.keep["a"].tolist() == [False] * 4 + [True, True] + [False] * 3 + [True]
    assert network["a"].tolist() == [0, 0, 0, 0, 6, 7, 0, 0, 0, 8]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimiser_forgets_what_it_knew_of_released_weights_alone(optimizer):
    network, free = layers(4, 0)
    schedule = fit_config(1, 0.1, 0, optimizer=optimizer).schedule
    optimizer = loop._optimizer(network, schedule)
    for value in network.values():
        value.grad = torch.ones_like(value)
    optimizer.step()
    with torch.no_grad():
        network["a"].masked_fill_(free["a"], 0.0)  # is released without a change of any bit
    known = network["b"], "momentum_buffer" if schedule.optimizer == "sgd" else "exp_avg_sq"
    optimizer.state[known[0]][known[1]].fill_(math.inf)  # and infinity times 0 is not 0
    path = ReleasePath(Pruning(free, "global"), 10)
    path.advance(0, network, optimizer)
    for name, value in network.items():
        gone = free[name] & ~path.keep[name]
        moments = [
            moment for moment in optimizer.state[value].values() if moment.shape == value.shape
        ]
        assert moments
        for moment in moments:
            assert bool((moment[gone] == 0).all())
            assert bool((moment[~gone] != 0).all())


def test_weights_that_are_not_finite_are_refused_and_a_training_of_them_has_diverged():
    network, free = layers(2, 0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with torch.no_grad():
        network["b"].fill_(math.nan)
    with pytest.raises(PackingError, match="b: weights that are not finite"):
        ReleasePath(Pruning(free, "global"), 1).advance(0, network, optimizer)
    which = learner()
    pruning = pruning_of(which, free_of(which))
    config = path_config(9, 1e30, 0, optimizer="sgd")
    with pytest.raises(TrainingError, match="not finite in epoch 1; lower the learning rate") as it:
        release(which, start(which), pruning, 0.5, config)
    assert it.value.epochs == 1


# --- in a training


@given(
    ratio=st.sampled_from([0.0, 0.3, 0.9, 0.99, 0.99999]),
    scope=st.sampled_from(SCOPES),
    epochs=st.sampled_from([0.1, 0.5, 1, 1.6, 6.25]),
    optimizer=st.sampled_from(OPTIMIZERS),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
@PROPERTY
def test_what_is_released_is_0_and_stays_so_and_what_is_frozen_keeps_its_bits(
    ratio, scope, epochs, optimizer, share
):
    which = learner()
    before, free = start(which), free_of(which, share)
    pruning = pruning_of(which, free, scope)
    moves = {"optimizer": optimizer, "momentum": 0.9, "weight_decay": 0.3}
    state, keep = release(which, before, pruning, ratio, path_config(epochs, 0.05, 0, **moves))
    after = fit(which, state, fit_config(2, 0.05, 1, **moves), keep).state
    assert within(keep, free)
    assert_counts(keep, free, ratio, scope)
    for name, mask in free.items():
        for trained in (state, after):
            assert bool((trained[name][mask & ~keep[name]] == 0).all())
            assert states_equal({"frozen": trained[name][~mask]}, {"frozen": before[name][~mask]})
    stages = min(STAGES, int(math.log(1 - ratio) / math.log(LAST_SHARE) * STAGES + 1e-9))
    trained = round(stages * epochs * BATCHES / STAGES) > 0
    assert torch.equal(state["head.bias"], before["head.bias"]) != trained


def test_a_ratio_of_0_needs_no_training():
    which = learner()
    before, free = start(which), free_of(which)
    state, keep = release(which, before, pruning_of(which, free), 0.0, path_config(4, 0.01, 0))
    assert states_equal(keep, free)
    assert states_equal(state, before)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("epochs", [0.4, 3, 7])
def test_a_share_was_on_the_way_to_any_smaller_one(tmp_path, scope, epochs):
    """A search releases once, as far as needed, and has the states that each release would have."""
    which = learner()
    before, free = start(which), free_of(which)
    pruning, config = pruning_of(which, free, scope), path_config(epochs, 0.02, 1)
    checkpoint = Checkpoint(tmp_path / "path", "")
    for further in (1, 3, 9):  # epochs; the training goes on where it was
        path = ReleasePath(pruning, epochs * BATCHES, remember=True)
        fit(which, before, config.of_length(float(further)), free, checkpoint, release=path)
        path.remember_end(further * BATCHES, which.network)
        for ratio in (0.0, 0.3, 0.8, 0.97, 0.999):
            step = path.step_of(1 - ratio)
            found = path.at(step, before)
            assert (found is None) == (step > further * BATCHES)
            if found is not None:
                state, keep = pruning.at_once(found[0], ratio, found[1])
                alone, same = release(learner(), before, pruning, ratio, config)
                assert states_equal(keep, same)
                assert states_equal(state, alone)


def test_a_longer_training_at_one_rate_goes_on_from_a_shorter_one_and_no_other_does(
    tmp_path, capsys
):
    which = learner()
    before, free = start(which), free_of(which)

    def goes_on(name, config, further):
        checkpoint = Checkpoint(tmp_path / name, "")
        fit(which, before, config, free, checkpoint)
        capsys.readouterr()
        state = fit(which, before, further, free, checkpoint).state
        went_on = "goes on after epoch" in capsys.readouterr().out
        assert states_equal(state, fit(which, before, further, free).state)
        return went_on

    flat = path_config(2, 0.02, 1)
    assert goes_on("flat", flat, flat.of_length(4.0))
    assert not goes_on("part", flat.of_length(1.5), flat.of_length(4.0))
    falls = fit_config(2, 0.02, 1)
    assert not goes_on("falls", falls, falls.of_length(4.0))


def test_the_last_state_is_returned_with_its_score_since_only_it_has_released_all(monkeypatch):
    which, scores = learner(), iter([0.9, 0.5, 0.1])
    monkeypatch.setattr(loop, "score", lambda seen: next(scores))
    path = ReleasePath(pruning_of(which, free_of(which)), 3 * BATCHES)
    config = path_config(3, 0.05, 0)
    result = fit(which, start(which), config, path.pruning.free, release=path)
    assert (result.epoch, result.score) == (3, 0.1)
    assert states_equal(result.state, which.network.state_dict())


def test_a_release_at_once_keeps_the_largest_weights_with_their_bits():
    which = learner()
    state, free = start(which), free_of(which)
    after, keep = pruning_of(which, free).at_once(state, 0.6)
    assert states_equal(keep, keep_masks({name: state[name] for name in free}, free, 0.6, "global"))
    assert after.keys() == state.keys()
    for name, value in after.items():
        gone = free[name] & ~keep[name] if name in free else torch.zeros_like(value).bool()
        assert bool((value[gone] == 0).all())
        assert torch.equal(value[~gone], state[name][~gone])


# --- the learning rate


SCHEDULE = Training(optimizer="sgd", learning_rate=0.1).for_training()


@given(epochs=st.one_of(st.integers(1, 100), st.floats(0.01, 100)))
@PROPERTY
def test_release_and_retraining_share_the_epochs(epochs):
    schedule = SCHEDULE.model_copy(update={"epochs": float(epochs)})
    first, second = schedule.parts("gradual")
    assert first.epochs > 0
    assert second.epochs > 0
    assert first.epochs + second.epochs == pytest.approx(epochs)
    assert abs(first.epochs - second.epochs) <= 1 + epochs % 1
    if epochs >= 2:
        assert first.epochs == int(first.epochs)
    assert (first.constant, second.constant) == (True, False)
    for part in (first, second):
        same = {"epochs": 1.0, "constant": False}
        assert part.model_copy(update=same) == schedule.model_copy(update=same)
    assert schedule.parts("once") == (None, schedule)


@given(epochs=st.integers(1, 200), retrain=st.none() | st.integers(1, 200))
@PROPERTY
def test_release_and_retraining_take_half_of_the_epochs_where_nothing_else_is_said(epochs, retrain):
    schedule: Schedule = Training(epochs=epochs, retrain_epochs=retrain).for_retraining()
    assert schedule.epochs == (retrain or max(1, epochs // 2))


@pytest.mark.parametrize("decrease", ["cosine", "step"])
def test_the_release_has_the_rate_of_the_start_and_the_retraining_its_whole_course(
    monkeypatch, decrease
):
    rates, real = [], loop.GradientMasks.before_step
    monkeypatch.setattr(
        loop.GradientMasks, "before_step", lambda self, rate: (rates.append(rate), real(self, rate))
    )
    which = learner()
    config = fit_config(8, 0.1, 0, optimizer="sgd", schedule=decrease)
    first, second = config.schedule.parts("gradual")
    fit(which, start(which), replace(config, schedule=second))
    expected = rates.copy()
    rates.clear()
    pruning = pruning_of(which, free_of(which))
    state, keep = release(which, start(which), pruning, 0.99, replace(config, schedule=first))
    fit(which, state, replace(config, schedule=second), keep)
    released = len(rates) - len(expected)
    assert released == ReleasePath(pruning, 4 * BATCHES).step_of(1 - 0.99) > 0
    assert rates == [0.1] * released + expected


# --- the same bits


@pytest.mark.parametrize("scope", SCOPES)
def test_the_same_seed_gives_the_same_bits_and_another_gives_others(scope):
    results = []
    for seed in (1, 1, 2):
        which = learner()
        pruning = pruning_of(which, free_of(which), scope)
        results.append(release(which, start(which), pruning, 0.9, path_config(4, 0.01, seed)))
    (state, keep), (same, same_keep), (other, _) = results
    assert states_equal(state, same)
    assert states_equal(keep, same_keep)
    assert not states_equal(state, other)


@pytest.mark.parametrize(
    ("scope", "optimizer", "spec", "killed_at"),  # killed_at: so many steps were made
    [
        # has normalisations
        *(("layer", "sgd", BackboneNetwork(backbone="resnet_small"), at) for at in (1, 6, 16)),
        *(("global", "adamw", None, at) for at in (4, 13)),
        *(("channel", "adamw", None, at) for at in (1, 4, 13)),
    ],
)
def test_a_release_that_was_killed_goes_on_to_the_same_bits_and_masks(
    tmp_path, monkeypatch, capsys, scope, optimizer, spec, killed_at
):
    config = path_config(4, 0.02, 1, optimizer=optimizer, weight_decay=0.1)

    def released(checkpoint=None):
        which = learner(spec, size=8 if spec else 4)
        pruning = pruning_of(which, free_of(which, 1.0), scope)
        return release(which, start(which), pruning, 1 - LAST_SHARE, config, checkpoint)

    expected, keep = released()
    path, steps, real = tmp_path / "pruned.checkpoint", [], loop.GradientMasks.before_step

    def dies(self, rate):
        if len(steps) == killed_at:
            raise KeyboardInterrupt
        steps.append(rate)
        real(self, rate)

    monkeypatch.setattr(loop.GradientMasks, "before_step", dies)
    if killed_at < 4 * BATCHES:
        with pytest.raises(KeyboardInterrupt):
            released(Checkpoint(path, ""))
    else:  # after the last step, before the result was written
        released(Checkpoint(path, ""))
    assert path.exists() == (killed_at >= BATCHES)
    steps.clear()
    monkeypatch.setattr(
        loop.GradientMasks, "before_step", lambda self, rate: (steps.append(rate), real(self, rate))
    )
    capsys.readouterr()
    after, same = released(Checkpoint(path, ""))
    whole = killed_at // BATCHES  # epochs
    assert len(steps) == (4 - whole) * BATCHES
    assert (f"goes on after epoch {whole} of 4" in capsys.readouterr().out) == (whole > 0)
    assert states_equal(after, expected)
    assert states_equal(same, keep)


def test_a_checkpoint_of_another_release_is_not_taken(tmp_path, capsys):
    free = free_of(learner())
    fewer = {name: mask.clone() for name, mask in free.items()}
    next(iter(fewer.values()))[0] = False
    known = Pruning(free, "global"), 8.0
    others = (
        None,  # a training that releases nothing
        (known[0], 9.0),
        (replace(known[0], scope="layer"), 8.0),
        (replace(known[0], free=fewer), 8.0),
    )
    config = path_config(2, 0.02, 1)

    def trained(name, given):
        """The state, and whether it went on."""
        which = learner()
        capsys.readouterr()
        path = ReleasePath(*given) if given else None
        masks = path.pruning.free if path else free
        checkpoint = Checkpoint(tmp_path / name, "key")
        state = fit(which, start(which), config, masks, checkpoint, release=path).state
        return state, "goes on" in capsys.readouterr().out

    for number, other in enumerate(others):
        trained("one", known)
        state, goes_on = trained("one", other)
        assert not goes_on
        assert states_equal(state, trained(str(number), other)[0])
    trained("one", known)
    assert trained("one", known)[1]


# --- distillation


class Says(nn.Module):
    """A network that says the same two logits of every image, or of every pixel."""

    def __init__(self, kind, logits):
        super().__init__()
        self.kind, self.logits = kind, nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        if self.kind == "classification":
            return self.logits.expand(len(images), 2)
        return self.logits.view(1, 2, 1, 1).expand(len(images), 2, *images.shape[2:])


def softmax(logits):
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
@pytest.mark.parametrize("ignored", [False, True])
def test_the_loss_of_distillation_is_that_of_hinton_vinyals_and_dean(kind, ignored):
    own, dense = [0.4, -0.3], [2.0, -1.0]
    train, validation, header = tiny_task("a", kind, size=4, classes=2)
    which = TaskLearner(Says(kind, own), train, validation, header, batches(kind), CPU)
    labels = torch.zeros(3, dtype=torch.long)
    if kind == "segmentation":
        labels = torch.zeros(3, 4, 4, dtype=torch.long)
        if ignored:
            labels[:, :2] = 255  # the divergence counts there, the labels do not
    taught = distilled(which, which, {"logits": torch.tensor(dense)})
    loss = taught.loss(torch.zeros(3, 3, 4, 4), labels)
    of_labels = -math.log(softmax(own)[0])
    theirs, ours = softmax([value / 2 for value in dense]), softmax([value / 2 for value in own])
    divergence = sum(p * math.log(p / q) for p, q in zip(theirs, ours, strict=True))
    assert float(loss.detach()) == pytest.approx(0.5 * of_labels + 0.5 * 4 * divergence, rel=1e-5)
    if kind == "segmentation" and ignored:
        nothing = taught.loss(torch.zeros(3, 3, 4, 4), torch.full_like(labels, 255))
        assert float(nothing.detach()) == pytest.approx(0.5 * 4 * divergence, rel=1e-5)


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_the_dense_network_teaches_and_is_not_changed(monkeypatch, kind):
    teachers = []
    train, validation, header = tiny_task("a", kind, size=16, samples=8)
    spec = DecoderNetwork(decoder="unet", encoder="resnet_small")
    which = TaskLearner(
        build(spec, kind, 3, 0), train, validation, header, batches(kind, batch_size=4), CPU
    )
    dense = {name: value.clone() for name, value in build(spec, kind, 3, 1).state_dict().items()}
    given = {name: value.clone() for name, value in dense.items()}
    forward = type(which.network).forward

    def seen(self, images):
        if self is not which.network:
            teachers.append(self)
            assert not self.training
        return forward(self, images)

    monkeypatch.setattr(type(which.network), "forward", seen)
    pupil, before = distilled(which, which, dense), start(which)
    pruning, config = pruning_of(which, free_of(which, 1.0)), path_config(2, 0.05, 0)
    state, _ = release(pupil, before, pruning, 1 - LAST_SHARE, config)
    (teacher,) = set(teachers)
    assert len(teachers) == 4  # batches
    assert states_equal(teacher.state_dict(), given)
    assert states_equal(dense, given)
    assert all(value.grad is None and not value.requires_grad for value in teacher.parameters())
    alone, _ = release(which, before, pruning, 1 - LAST_SHARE, config)
    assert not states_equal(state, alone)


def test_a_network_that_says_what_the_dense_one_says_learns_from_labels_alone():
    which = learner()
    images, labels = torch.rand(3, 3, 4, 4), torch.tensor([0, 1, 2])
    which.network.eval()
    both = distilled(which, which, which.network.state_dict()).loss(images, labels)
    assert float(both.detach()) == pytest.approx(0.5 * float(which.loss(images, labels).detach()))
