"""Settings of training, one by one: batches of a step, …"""

import pytest
import torch

from acll.networks.build import build
from acll.networks.spec import BackboneNetwork, PerceptronNetwork
from acll.training import loop
from acll.training.checkpoint import Checkpoint
from acll.training.joint import JointLearner
from acll.training.learner import TaskLearner
from acll.training.loop import fit
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
