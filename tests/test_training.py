"""The loop: what may not move does not, and a training that was killed goes on to the same bits."""

import os
import platform
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from acll.networks.build import build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork
from acll.search.retraining import Retraining, trial_runner
from acll.training import loop
from acll.training.checkpoint import Checkpoint
from acll.training.distillation import distilled
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, TrainingError, fit
from acll.training.metrics import score
from acll.training.release import Pruning
from acll.training.release import release as gradual_release
from acll.training.settings import Training
from conftest import batches, fit_config, killing, states_equal, tiny_task

CPU = torch.device("cpu")


def learner(task=None, **settings):
    train, validation, header = task or tiny_task("a", samples=12)
    network = build(
        BackboneNetwork(backbone="resnet_small"), "classification", len(header.classes), 0
    )
    return TaskLearner(network, train, validation, header, batches(batch_size=4, **settings), CPU)


def start(which):
    return {name: value.clone() for name, value in which.network.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "more",
    [
        {"schedule": "cosine"},
        {"schedule": "step", "warmup": 0.3},
        {"schedule": "polynomial", "clip": 0.01},
    ],
    ids=str,
)
def test_masked_weights_do_not_move_by_a_bit_and_the_others_do(optimizer, more):
    which = learner()
    moves = {"optimizer": optimizer, "weight_decay": 0.5, "momentum": 0.9, **more}
    before = start(which)
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(value.shape, generator=generator) < 0.5
        for name, value in before.items()
        if name.startswith("encoder.") and value.ndim == 4
    }
    after = fit(which, before, fit_config(3, 0.05, 0, **moves), masks).state
    for name, mask in masks.items():
        assert torch.equal(after[name][~mask], before[name][~mask])
        assert not torch.equal(after[name][mask], before[name][mask])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_without_masks_decay_is_that_of_pytorch(optimizer):
    """One step of ours against one of the library's own optimiser with decay, on weights alone."""
    training = Training(optimizer=optimizer, weight_decay=0.1, momentum=0.9, learning_rate=0.01)
    schedule = training.for_training()
    ours, theirs = (
        build(BackboneNetwork(backbone="resnet_small"), "classification", 3, 0) for _ in range(2)
    )
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    weights = [value for value in theirs.parameters() if value.ndim > 1]
    others = [value for value in theirs.parameters() if value.ndim <= 1]
    extra = {"momentum": 0.9} if optimizer == "sgd" else {}
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    reference, own = kinds[optimizer](groups, lr=0.01, **extra), loop._optimizer(ours, schedule)
    masked = loop.GradientMasks(ours, {}, schedule, CPU)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for network, optimiser in ((ours, own), (theirs, reference)):
            optimiser.zero_grad()
            network(images).square().mean().backward()
            if network is ours:
                masked.before_step(0.01)
            optimiser.step()
    for mine, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_gives_others():
    results = []
    for seed in (1, 1, 2):
        which = learner(augmentation=["flip", "shift", "brightness"], label_smoothing=0.1)
        results.append(fit(which, start(which), fit_config(2, 0.01, seed), None).state)
    assert states_equal(results[0], results[1])
    assert not states_equal(results[0], results[2])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_killed_training_goes_on_from_its_last_epoch_to_the_same_bits(
    tmp_path, monkeypatch, optimizer, killed_after
):
    config, path = fit_config(4, 0.01, 1, optimizer=optimizer), tmp_path / "dense.checkpoint"
    left_alone = learner()
    expected = fit(left_alone, start(left_alone), config, None)

    first = learner()
    with pytest.raises(KeyboardInterrupt):
        fit(first, start(first), config, None, killing(path, "", killed_after))
    real = Checkpoint.write
    second, epochs = learner(), []
    monkeypatch.setattr(
        Checkpoint, "write", lambda *arguments: (real(*arguments), epochs.append(1))
    )
    resumed = fit(second, start(second), config, None, Checkpoint(path, ""))
    assert len(epochs) == 4 - killed_after  # only what was missing has been trained
    assert states_equal(resumed.state, expected.state)
    assert (resumed.score, resumed.epoch, resumed.history) == (
        expected.score,
        expected.epoch,
        expected.history,
    )


def test_a_checkpoint_of_another_training_of_other_code_or_a_damaged_one_is_not_taken(
    tmp_path, capsys
):
    path, config = tmp_path / "dense.checkpoint", fit_config(2, 0.01, 1)
    which = learner()
    first = start(which)
    other = first | {"head.2.bias": first["head.2.bias"] + 1}
    masks = {"head.2.bias": torch.zeros(3, dtype=torch.bool)}
    # its key stands for data, batches, code and libraries
    known = (first, config, None, "key")
    others = [
        (other, config, None, "key"),
        (first, fit_config(2, 0.01, 2), None, "key"),
        (first, fit_config(3, 0.01, 1), None, "key"),
        (first, fit_config(2, 0.01, 1, weight_decay=0.5), None, "key"),
        (first, config, masks, "key"),
        (first, config, None, "edited"),
    ]

    def trained(state, config, masks, key=None):
        own = learner()
        return fit(own, state, config, masks, None if key is None else Checkpoint(path, key)).state

    expected = trained(*known)
    whole = path.read_bytes()
    for state, own, moving, key in others:
        path.write_bytes(whole)
        capsys.readouterr()
        found = trained(state, own, moving, key)
        assert "goes on" not in capsys.readouterr().out
        assert states_equal(found, trained(state, own, moving))
    path.write_bytes(whole)
    capsys.readouterr()
    assert states_equal(trained(*known), expected)
    assert "goes on after epoch 2 of 2" in capsys.readouterr().out
    flipped = [bytearray(whole) for _ in range(4)]
    for number, content in enumerate(flipped):
        content[len(whole) * (number + 1) // 5] ^= 1  # one bit, in the weights or around them
    for damaged in (whole[:1000], b"", b"no checkpoint", *map(bytes, flipped)):
        path.write_bytes(damaged)
        assert states_equal(trained(*known), expected)
        said = capsys.readouterr().out
        assert "goes on" not in said
        assert "dense.checkpoint: damaged, so the training begins again" in said


def test_the_best_epoch_on_the_validation_split_is_kept():
    which = learner(task=tiny_task("a", samples=40))
    fitted = fit(which, start(which), fit_config(6, 0.01, 0), None)
    scores = [row["score"] for row in fitted.history]
    assert fitted.score == max(scores)
    assert fitted.epoch == scores.index(max(scores)) + 1


@pytest.mark.parametrize(
    ("epochs", "steps", "validations"),
    [(0.4, 2, 1), (1, 4, 1), (1.5, 6, 2), (0.01, 1, 1), (1.01, 4, 1)],
)
def test_part_of_an_epoch_is_a_whole_training_with_a_schedule_of_its_own(
    monkeypatch, epochs, steps, validations
):
    rates, real = [], loop.GradientMasks.before_step
    monkeypatch.setattr(
        loop.GradientMasks, "before_step", lambda self, rate: (rates.append(rate), real(self, rate))
    )
    which = learner(task=tiny_task("a", samples=16))
    fitted = fit(which, start(which), fit_config(epochs, 0.01, 0), None)
    assert len(rates) == steps == loop.steps_of(epochs, 4)
    assert len(fitted.history) == validations
    assert rates == [loop._decreased("cosine", 0.01, step / steps) for step in range(steps)]


def test_an_observer_sees_each_validation_and_may_end_the_training():
    seen = []

    def on_validation(results, scores):
        seen.append(score(*results))
        assert scores == seen
        return len(seen) == 2

    which = learner()
    fitted = fit(which, start(which), fit_config(5, 0.01, 0), None, on_validation=on_validation)
    assert seen == [row["score"] for row in fitted.history]
    assert len(seen) == 2


def test_the_state_may_be_left_where_only_the_score_is_wanted():
    with_state, without = learner(), learner()
    kept = fit(with_state, start(with_state), fit_config(2, 0.01, 0), None)
    left = fit(without, start(without), fit_config(2, 0.01, 0, keep_state=False), None)
    assert left.state == {}
    assert (left.score, left.history) == (kept.score, kept.history)


def trials_of(which, learning_rate=0.002, epochs=6, release="gradual", on_held=None, **settings):
    """Trials of a network that was newly drawn, all of whose weights are free."""
    checkpoints = settings.pop("checkpoints", (None, None))
    state = start(which)
    free = {
        name: torch.ones(state[name].shape, dtype=torch.bool)
        for name in partition(which.network).shared
    }
    schedule, pruning = (
        fit_config(epochs, learning_rate, 0, **settings).schedule,
        Pruning(free, "global"),
    )
    own = Retraining(which, schedule, state, pruning, release, True, (3, 4), checkpoints)
    return state, trial_runner(own, on_held)


@pytest.mark.parametrize("release", ["gradual", pytest.param("once", marks=pytest.mark.slow)])
def test_a_trial_does_not_depend_on_those_before_it(release):
    task = tiny_task("a", samples=16)
    which = learner(task=task)
    state, run_trial = trials_of(which, release=release)
    before = {name: value.clone() for name, value in state.items()}
    first = run_trial(0.3, 0.0)
    smaller = run_trial(0.01, 0.0)
    assert states_equal(state, before)
    assert run_trial(0.3, 0.0) == first
    assert first.epochs_run == smaller.epochs_run == (3 if release == "gradual" else 6)
    _, alone = trials_of(learner(task=task), release=release)
    assert alone(0.01, 0.0) == smaller


def test_a_trial_without_a_threshold_scores_the_dense_network():
    which = learner(task=tiny_task("a", samples=16))
    state, run_trial = trials_of(which)
    got = run_trial(1.0, None)
    which.network.load_state_dict(state)
    (seen,) = which.validate()
    assert (got.score, got.epochs_run) == (score(seen), 0)


@pytest.mark.parametrize("release", ["gradual", "once"])
def test_a_trial_that_holds_hands_over_what_release_and_retraining_come_to(release):
    which = learner(task=tiny_task("a", samples=16))
    held = []
    state, run_trial = trials_of(
        which, release=release, on_held=lambda *result: held.append(result)
    )
    run_trial(0.1, 2.0)  # nothing reaches that
    assert held == []
    measured = run_trial(0.3, 0.0)
    ((kept, result, keep),) = held
    assert (kept, result.score) == (0.3, measured.score)
    first, second = fit_config(6, 0.002, 0).schedule.parts(release)
    free = {name: torch.ones_like(mask) for name, mask in keep.items()}
    own, pruning = distilled(which, which, state), Pruning(free, "global")
    if first is None:
        smaller, masks = pruning.at_once(state, 0.7)
    else:
        smaller, masks = gradual_release(own, state, pruning, 0.7, FitConfig(first, 3))
    assert states_equal(masks, keep)
    expected = fit(own, smaller, FitConfig(second, 4), masks)
    assert states_equal(result.state, expected.state)
    assert (result.score, result.epoch) == (expected.score, expected.epoch)


@pytest.mark.parametrize(
    ("threshold", "writes"),
    [
        (0.0, 1),
        (2.0, 5),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in [(0.0, 3), (0.0, 4), (0.0, 7), (2.0, 4)]
        ),
    ],
)
def test_a_trial_that_is_killed_goes_on_to_the_same_result(tmp_path, threshold, writes):
    """One that holds, and one that ends after half of its validations."""

    def trial(*checkpoints):
        held = []
        _, run_trial = trials_of(
            learner(task=tiny_task("a", samples=16)),
            epochs=8,
            on_held=lambda *result: held.append(result),
            checkpoints=checkpoints,
        )
        return run_trial(0.03, threshold), held

    released = 3  # epochs: ⌈13/20 · 4⌉
    expected, held = trial(None, None)
    paths = tmp_path / "release", tmp_path / "retrain"
    with pytest.raises(KeyboardInterrupt):
        trial(killing(paths[0], "", writes), killing(paths[1], "", writes - released))
    got, held_again = trial(*(Checkpoint(path, "") for path in paths))
    assert got == expected
    assert len(held_again) == len(held) == (threshold == 0)
    for one, other in zip(held, held_again):
        assert states_equal(one[1].state, other[1].state)
        assert states_equal(one[2], other[2])


@pytest.mark.slow
def test_a_path_that_is_killed_is_made_longer_after_that(tmp_path):
    shares = (0.02, 0.1, 0.006)
    _, run_trial = trials_of(learner(task=tiny_task("a", samples=16)), epochs=8)
    expected = [run_trial(kept, 0.0) for kept in shares]
    for writes in (1, 3):
        path = tmp_path / str(writes)
        _, killed = trials_of(
            learner(task=tiny_task("a", samples=16)),
            epochs=8,
            checkpoints=(killing(path, "", writes), None),
        )
        with pytest.raises(KeyboardInterrupt):
            list(map(killed, shares, [0.0] * len(shares)))
        which = learner(task=tiny_task("a", samples=16))
        _, run_trial = trials_of(which, epochs=8, checkpoints=(Checkpoint(path, ""), None))
        assert [run_trial(kept, 0.0) for kept in shares] == expected


def test_a_trial_ends_when_it_can_hardly_reach_its_threshold():
    _, run_trial = trials_of(learner(task=tiny_task("a", samples=16)), epochs=16)
    assert 4 <= run_trial(0.3, 2.0).epochs_run < 8  # half of its validations, at least
    assert run_trial(0.3, 0.0).epochs_run == 8


def test_a_training_that_diverges_says_what_to_change():
    which = learner()
    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit(which, start(which), fit_config(4, 1e30, 0, optimizer="sgd"), None)


def last_layer(network):
    return [module for module in network.head.modules() if isinstance(module, nn.Linear)][-1]


def infinite_gradients(network, images, labels):
    """0, whose gradient is infinite: no loss sees what the step makes of the weights."""
    return (network(images).sum() * 0 + last_layer(network).weight.sum() * 0).sqrt()


def infinite_statistics(network, images, labels):
    """The loss of some images, after others that leave their mark in normalisations alone."""
    network(torch.full_like(images, torch.inf))
    return (last_layer(network).weight ** 2).sum()


def extreme_outputs(network, images, labels):
    """A loss that is finite, of weights that are so, and give what is not."""
    with torch.no_grad():
        last_layer(network).weight.fill_(3e38)
    return (network.encoder(images)[-1] ** 2).mean()


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (infinite_gradients, "the weights are not finite in epoch 1"),
        (infinite_statistics, "the weights are not finite in epoch 1"),
        (extreme_outputs, "what the network gives is not finite in epoch 1"),
    ],
)
def test_a_network_that_is_not_finite_is_no_result_though_its_loss_is(loss, what):
    which = learner()
    which = replace(which, batch_loss=lambda *batch: loss(which.network, *batch))
    with pytest.raises(TrainingError, match=what):
        fit(which, start(which), fit_config(0.1, 0.01, 0), None)  # one batch


@pytest.mark.parametrize("release", ["gradual", "once"])
def test_a_trial_that_diverges_has_failed_and_ends_no_search(release):
    _, run_trial = trials_of(learner(), 1e30, 8, release, optimizer="sgd")
    for kept in (0.9, 0.3, 0.01, 0.3):  # of the first, a release needs no training
        got = run_trial(kept, 0.5)
        assert (got.score, got.standard_error, got.diverged) == (0, 0, True)
        assert got.epochs_run == (0 if release == "gradual" and kept < 0.9 else 1)


@pytest.mark.parametrize(
    ("loss", "class_weights"),
    [
        ("cross_entropy", "none"),
        ("cross_entropy", "balanced"),
        ("dice", "none"),
        ("cross_entropy_dice", "balanced"),
    ],
)
def test_segmentation_learns_with_each_loss_and_ignores_what_is_to_be_ignored(loss, class_weights):
    from acll.data.batches import Split
    from acll.networks.spec import DecoderNetwork

    train, _, header = tiny_task("a", "segmentation", size=16, classes=2, samples=8)
    labels = (train.images[:, 0] > 127).to(torch.uint8)  # to be seen at once
    labels[:, :3] = 255
    split = Split(train.images, labels)
    network = build(DecoderNetwork(decoder="unet", encoder="resnet_small"), "segmentation", 2, 0)
    settings = batches("segmentation", batch_size=4, loss=loss, class_weights=class_weights)
    which = TaskLearner(network, split, split, header, settings, CPU)
    fitted = fit(which, start(which), fit_config(12, 0.01, 0), None)
    assert fitted.score > 0.6


def test_the_schedules_end_low():
    assert loop._decreased("cosine", 1.0, 0.0) == 1.0
    assert loop._decreased("cosine", 1.0, 0.5) == pytest.approx(0.5)
    assert loop._decreased("cosine", 1.0, 1.0) == pytest.approx(0.0)
    assert [loop._decreased("step", 1.0, done) for done in (0.49, 0.5, 0.75)] == [1.0, 0.1, 0.01]
    assert loop._decreased("polynomial", 2.0, 0.0) == 2.0
    assert loop._decreased("polynomial", 2.0, 0.75) == pytest.approx(2 * 0.25**0.9)
    assert loop._decreased("polynomial", 2.0, 1.0) == 0.0


def test_the_learning_rate_rises_first_and_then_runs_through_its_course():
    schedule = Training(learning_rate=1.0, warmup=0.25).for_training()
    rates = [loop._learning_rate(schedule, made, 16) for made in range(16)]
    assert rates[:4] == [1 / 5, 2 / 5, 3 / 5, 4 / 5]
    assert rates[4:] == [loop._decreased("cosine", 1.0, step / 12) for step in range(12)]
    release = schedule.model_copy(update={"constant": True})
    assert loop._learning_rate(release, 0, 16) == 1.0


@pytest.mark.parametrize(("clip", "factor"), [(1.0, 1 / 5), (50.0, 1.0), (None, 1.0)])
def test_a_gradient_is_cut_to_a_norm_in_which_frozen_weights_and_decay_count_nothing(clip, factor):
    network = torch.nn.Linear(2, 2, bias=False)
    network.weight.grad = torch.tensor([[3.0, 4.0], [100.0, 0.0]])
    moves = torch.tensor([[True, True], [False, True]])
    schedule = Training(optimizer="sgd", clip=clip, weight_decay=0.5).for_training()
    loop.GradientMasks(network, {"weight": moves}, schedule, CPU).before_step(0.1)
    gradient = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    expected = (gradient * factor + 0.5 * network.weight.detach()) * moves
    assert torch.allclose(network.weight.grad, expected, atol=1e-6)
    network.weight.grad = gradient.clone()  # all may move
    loop.GradientMasks(network, {}, schedule, CPU).before_step(0.1)
    expected = gradient * factor + 0.5 * network.weight.detach()
    assert torch.allclose(network.weight.grad, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_a_step_frees_is_there_for_the_next_one():
    code = (
        "import resource, torch; from acll.training.process import prepare_process\n"
        "def step(): return sum(torch.ones(2**20 + size).add(1)[0] for size in range(8))\n"
        "def faults():\n"
        "    step(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(5): step()\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(faults()); prepare_process(1); print(faults())"
    )
    # glibc moves this bound while it runs, so that what it gives back would depend on the moment
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    faults = list(map(int, said.split()))
    pages = 5 * 8 * 2 * 4 * 2**20 // resource.getpagesize()
    assert faults[1] < 0.01 * pages
    assert faults[0] > 10 * faults[1]
