"""Settings of training, each by itself: batches of a step, an early end, optimisers."""

import numpy as np
import pytest
import torch

from acll.networks.build import build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, PerceptronNetwork
from acll.search.retraining import Retraining, trial_runner
from acll.training import loop
from acll.training.checkpoint import Checkpoint
from acll.training.joint import JointLearner
from acll.training.learned import Scored, release_learned
from acll.training.learner import TaskLearner
from acll.training.loop import FitConfig, fit
from acll.training.metrics import EvalResult
from acll.training.release import Pruning
from acll.training.release import release as gradual_release
from acll.training.settings import Training
from conftest import batches, fit_config, killing, states_equal, tiny_task

CPU = torch.device("cpu")
RESNET = BackboneNetwork(backbone="resnet_small")
PERCEPTRON = PerceptronNetwork(hidden=[8], image_size=16, channels=3)  # without normalisations


def learner(spec=RESNET, samples=16, name="a", **settings):
    train, validation, info = tiny_task(name, samples=samples)
    network = build(spec, "classification", len(info.classes), 0)
    own = batches(**({"batch_size": 4} | settings))
    return TaskLearner(network, train, validation, info, own, CPU)


def start(which):
    return {name: value.clone() for name, value in which.network.state_dict().items()}


# --------------------------------------------------------------------------------------------------
# accumulate


def test_two_batches_of_a_step_are_one_that_is_twice_as_large_where_nothing_normalises():
    halves, wholes = learner(PERCEPTRON, accumulate=2), learner(PERCEPTRON, batch_size=8)
    moves = fit_config(3, 0.1, 0, optimizer="sgd", weight_decay=0.1, clip=1.0, schedule="step")
    one, other = (fit(which, start(which), moves).history for which in (halves, wholes))
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in other], rel=1e-5)
    for mine, theirs in zip(halves.network.parameters(), wholes.network.parameters()):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("samples", "accumulate", "of_steps"),
    [
        (16, 1, [1, 1, 1, 1]),
        (16, 2, [2, 2]),
        (20, 2, [2, 2, 1]),
        (40, 4, [4, 3, 3]),
        (16, 9, [4]),
    ],
)
def test_an_epoch_has_all_its_batches_in_steps_of_nearly_as_many(samples, accumulate, of_steps):
    which = learner(PERCEPTRON, samples, accumulate=accumulate)
    plain = learner(PERCEPTRON, samples)
    losses = [list(of_step) for of_step in which.losses(1, 0)]
    assert [len(of_step) for of_step in losses] == of_steps
    assert which.steps() == len(of_steps)
    each = [float(loss.detach()) for (loss,) in plain.losses(1, 0)]
    assert [
        float(loss.detach() * len(of_step)) for of_step in losses for loss in of_step
    ] == pytest.approx(each, rel=1e-6)


def test_the_learning_rate_goes_by_steps_of_the_optimiser(monkeypatch):
    rates, real = [], loop.GradientMasks.before_step
    monkeypatch.setattr(
        loop.GradientMasks, "before_step", lambda self, lr: (rates.append(lr), real(self, lr))
    )
    which = learner(PERCEPTRON, 20, accumulate=2)
    fitted = fit(which, start(which), fit_config(1.5, 0.01, 0))
    steps = round(1.5 * 3)
    assert rates == [loop._decreased("cosine", 0.01, step / steps) for step in range(steps)]
    assert len(fitted.history) == 2


def test_each_step_of_a_joint_training_is_that_of_one_task():
    learners = (learner(samples=20, accumulate=2), learner(name="b", accumulate=4))
    joint = JointLearner(learners, tuple(name for name in start(learners[0]) if ".conv" in name))
    found = [len(list(of_step)) for of_step in joint.losses(0, 0)]
    assert joint.steps() == 3 + 1
    assert sorted(found) == [1, 2, 2, 4]


def test_a_killed_training_with_several_batches_a_step_goes_on_to_the_same_bits(tmp_path):
    config, path = fit_config(4, 0.01, 1), tmp_path / "dense.checkpoint"
    left_alone, first, second = (learner(samples=20, accumulate=2) for _ in range(3))
    expected = fit(left_alone, start(left_alone), config)
    with pytest.raises(KeyboardInterrupt):
        fit(first, start(first), config, None, killing(path, "", 2))
    resumed = fit(second, start(second), config, None, Checkpoint(path, ""))
    assert states_equal(resumed.state, expected.state)
    assert resumed.history == expected.history


# --------------------------------------------------------------------------------------------------
# patience


class Scripted:
    """A learner whose validations have the scores that are written here."""

    def __init__(self, scores):
        self.inner, self.scores = learner(PERCEPTRON), iter(scores)
        self.network, self.device = self.inner.network, CPU
        self.steps, self.losses = self.inner.steps, self.inner.losses

    def validate(self):
        cells = np.zeros(100, np.int64)
        cells[round(100 * next(self.scores)) :] = 1
        return (EvalResult("accuracy", 2, cells=cells),)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 5, 5),
        ([0.1, 0.2, 0.2, 0.4, 0.5], 1, 3, 2),  # as good is not better
        ([0.1, 0.2, 0.2, 0.4, 0.5], 2, 5, 5),
        ([0.5, 0.2, 0.3, 0.4, 0.5], 3, 4, 1),
        ([0.0, 0.0, 0.0, 0.4, 0.5], 2, 3, 1),
        ([0.5, 0.2, 0.3, 0.4, 0.5], None, 5, 1),
        ([0.5, 0.2, 0.3, 0.4, 0.5], 9, 5, 1),
    ],
)
def test_a_training_ends_after_so_many_epochs_without_a_better_score(
    capsys, scores, patience, epochs, best
):
    which = Scripted(scores)
    fitted = fit(which, start(which), fit_config(5, 0.01, 0, patience=patience))
    assert len(fitted.history) == epochs
    assert fitted.epoch == best
    told = f"training: ends, since epoch {best} stays the best"
    assert (told in capsys.readouterr().out) == (epochs < 5)


def test_the_epochs_before_an_early_end_are_those_of_the_whole_training():
    waiting, whole = learner(), learner()
    ended = fit(waiting, start(waiting), fit_config(8, 0.01, 1, patience=2))
    full = fit(whole, start(whole), fit_config(8, 0.01, 1))
    assert len(ended.history) < 8
    assert ended.history == full.history[: len(ended.history)]


@pytest.mark.parametrize("killed_after", [1, 3, 4])
def test_a_killed_training_that_would_end_early_does_so(tmp_path, killed_after):
    scores, path = [0.1, 0.4, 0.3, 0.2, 0.5], tmp_path / "dense.checkpoint"
    config, whole = fit_config(5, 0.01, 0, patience=2), Scripted(scores)
    expected = fit(whole, start(whole), config)
    assert len(expected.history) == 4
    killed, resumed = Scripted(scores), Scripted(scores[killed_after:])
    with pytest.raises(KeyboardInterrupt):
        fit(killed, start(killed), config, None, killing(path, "", killed_after))
    got = fit(resumed, start(resumed), config, None, Checkpoint(path, ""))
    assert states_equal(got.state, expected.state)
    assert got.history == expected.history


def test_a_release_does_not_end_early():
    schedule = Training(patience=2).for_retraining()
    release, retraining = schedule.parts("gradual")
    assert (release.patience, retraining.patience) == (None, 2)
    assert schedule.parts("once")[1].patience == 2


@pytest.mark.parametrize("criterion", ["learned", "magnitude"])
@pytest.mark.parametrize("more", [{"patience": 1}, {"ema": 0.9}, {"accumulate": 2}], ids=str)
def test_a_trial_is_what_release_and_retraining_come_to_and_costs_what_it_ran(criterion, more):
    """As with no such setting; the masks of trials that hold are taken over."""
    of_batches = {"accumulate": 2} if "accumulate" in more else {}
    which = learner(samples=16, **of_batches)
    state = start(which)
    free = {name: torch.ones(value.shape, dtype=torch.bool) for name, value in state.items()
            if name in partition(which.network).shared}  # fmt: skip
    way = Scored(free, "all") if criterion == "learned" else Pruning(free, "layer")
    if criterion == "learned":
        ranks = {name: torch.zeros(mask.shape) for name, mask in free.items()}
        state = way.begin(which, state, ranks, 0)[1]
    moves = {name: value for name, value in more.items() if name != "accumulate"}
    schedule = fit_config(12, 0.01, 0, **moves).schedule
    held = []
    run_trial = trial_runner(
        Retraining(which, schedule, state, way, "gradual", False, (3, 4)),
        lambda kept, result, keep: held.append((result, keep)),
    )
    measured = run_trial(0.05, 0.0)
    ((result, keep),) = held
    first, second = schedule.parts("gradual")
    if criterion == "learned":
        after = release_learned(which, state, way, 0.05, FitConfig(first, 3), lambda own: own)
        expected = fit(way.learner(which, 0.05), after, FitConfig(second, 4), free)
        final, masks = way.finished(expected.state)
    else:
        after, masks = gradual_release(which, state, way, 0.95, FitConfig(first, 3))
        expected = fit(which, after, FitConfig(second, 4), masks)
        final = expected.state
    assert states_equal(result.state, final)
    assert states_equal(keep, masks)
    assert measured.epochs_run == len(expected.history)
    assert (len(expected.history) < 6) == ("patience" in more)
    for name, mask in keep.items():
        assert not result.state[name][~mask].any()
