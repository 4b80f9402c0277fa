"""The moving average of weights: what it is, what keeps its bits, what a training keeps of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from acll.networks.build import build
from acll.networks.spec import BackboneNetwork
from acll.training.average import MovingAverage
from acll.training.checkpoint import Checkpoint
from acll.training.joint import JointLearner
from acll.training.learned import Scored
from acll.training.learner import TaskLearner
from acll.training.loop import fit
from acll.training.masking import LargestScores, masks_of, scores_of
from acll.training.metrics import score
from acll.training.release import Pruning, ReleasePath
from acll.training.settings import Training
from conftest import batches, fit_config, killing, states_equal, tiny_task

CPU = torch.device("cpu")


def learner(scored=False):
    """A learner of a small network, and its first state; of one with scores, if wanted."""
    train, validation, info = tiny_task("a", samples=16)
    network = build(BackboneNetwork(backbone="resnet_small"), "classification", 3, 0)
    own = TaskLearner(network, train, validation, info, batches(batch_size=4), CPU)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    if not scored:
        return own, state, {}
    free = {name: torch.rand(value.shape) < 0.7 for name, value in convolutions(state)}
    ranks = {name: torch.zeros(mask.shape) for name, mask in free.items()}
    return *Scored(free, "chosen").begin(own, state, ranks, seed=0), free


def convolutions(state):
    return [(name, value) for name, value in state.items() if value.ndim == 4]


def bits(value):
    return value.view(torch.int32)


@pytest.mark.parametrize("decay", [0.05, 0.6, 0.99])
def test_parameters_and_statistics_are_averaged_and_counts_are_not(decay):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(network, decay, {}, ())
    expected = {name: value.double().clone() for name, value in network.state_dict().items()}
    for step in range(30):
        with torch.no_grad():
            for value in network.parameters():
                value.add_(torch.randn(value.shape))
        network(torch.randn(5, 3))
        average.update()
        weight = min(decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            expected[name] = weight * expected[name] + (1 - weight) * value.double()
    expected["1.num_batches_tracked"] = torch.tensor(30)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with average.shown():
        for name, value in network.state_dict().items():
            torch.testing.assert_close(
                value.double(), expected[name].double(), rtol=1e-5, atol=1e-6
            )
    assert states_equal(network.state_dict(), before)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 0.999), st.floats(0, 1))
def test_what_may_not_move_is_shown_with_its_bits(seed, decay, share):
    generator = torch.Generator().manual_seed(seed)
    network = nn.Linear(7, 5)
    values = torch.tensor([-0.0, 0.0, 1e-45, 3e38, -1.1])
    chosen = torch.randint(0, 5, network.weight.shape, generator=generator)
    mask = torch.rand(network.weight.shape, generator=generator) < share
    with torch.no_grad():
        network.weight.copy_(values[chosen])
    before = network.weight.detach().clone()
    average = MovingAverage(network, decay, {"weight": mask}, ())
    for _ in range(5):
        with torch.no_grad():
            network.weight.add_(torch.randn(mask.shape, generator=generator) * mask)
            network.weight[~mask] = before[~mask]
        average.update()
    with average.shown():
        assert torch.equal(bits(network.weight.detach())[~mask], bits(before)[~mask])


@pytest.mark.parametrize("scored", [False, True])
def test_what_is_kept_is_what_was_validated_and_the_training_goes_its_own_way(scored):
    results, states = [], []
    for ema in (None, 0.9):
        torch.manual_seed(0)
        own, state, masks = learner(scored)
        results.append(fit(own, state, fit_config(3, 0.01, 1, ema=ema), masks))
        states.append({name: value.clone() for name, value in own.network.state_dict().items()})
        own.network.load_state_dict(results[-1].state)
        assert score(*own.validate()) == results[-1].score
    plain, averaged = ([row["loss"] for row in one.history] for one in results)
    assert plain == averaged
    assert not states_equal(results[0].state, results[1].state)
    for name, value in states[0].items():  # the masks are those of the last pass
        assert name.startswith("masks.") or torch.equal(value, states[1][name])


def test_an_averaged_network_reads_the_weights_with_the_largest_averaged_scores():
    own, state, free = learner(scored=True)
    kept = fit(own, state, fit_config(2, 0.01, 1, ema=0.9), free).state
    choose = LargestScores(0.1, free, 0.5)
    masks, scores = masks_of(kept), scores_of(kept)
    assert masks
    for name, mask in masks.items():
        assert torch.equal(choose(name, scores[name].abs(), True).view_as(mask), mask)
        assert torch.equal(bits(kept[name])[~free[name]], bits(state[name])[~free[name]])


def test_statistics_of_a_frozen_normalisation_keep_their_bits():
    own, state, _ = learner()
    norm = next(
        name for name, module in own.network.named_modules() if isinstance(module, nn.BatchNorm2d)
    )
    state[f"{norm}.running_mean"][0] = -0.0
    masks = {f"{norm}.{leaf}": torch.zeros_like(state[f"{norm}.{leaf}"], dtype=torch.bool)
             for leaf in ("weight", "bias")}  # fmt: skip
    kept = fit(own, state, fit_config(2, 0.01, 1, ema=0.9), masks).state
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(bits(kept[f"{norm}.{leaf}"]), bits(state[f"{norm}.{leaf}"]))


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, scored, killed_after):
    config, path = fit_config(4, 0.01, 1, ema=0.9), tmp_path / "dense.checkpoint"

    def trained(checkpoint):
        torch.manual_seed(0)
        own, state, masks = learner(scored)
        return fit(own, state, config, masks, checkpoint)

    expected = trained(None)
    with pytest.raises(KeyboardInterrupt):
        trained(killing(path, "", killed_after))
    resumed = trained(Checkpoint(path, ""))
    assert states_equal(resumed.state, expected.state)
    assert resumed.history == expected.history


def test_a_gradual_release_has_no_average_and_the_retraining_has():
    schedule = Training(ema=0.9).for_retraining()
    release, retraining = schedule.parts("gradual")
    assert (release.ema, retraining.ema) == (None, 0.9)
    assert schedule.parts("once")[1].ema == 0.9
    own, state, _ = learner()
    free = {name: torch.ones_like(value, dtype=torch.bool) for name, value in convolutions(state)}
    path = ReleasePath(Pruning(free, "layer"), 8)
    with pytest.raises(AssertionError):
        fit(own, state, fit_config(2, 0.01, 1, ema=0.9), free, release=path)


def test_networks_that_share_weights_share_their_average():
    one, other = learner()[0], learner()[0]
    shared = tuple(name for name, _ in convolutions(one.network.state_dict()))
    joint = JointLearner((one, other), shared)
    kept = fit(joint, joint.network.state_dict(), fit_config(2, 0.01, 1, ema=0.9)).state
    for name in shared:
        assert torch.equal(kept[f"0.{name}"], kept[f"1.{name}"])
    assert not torch.equal(kept[f"0.{shared[0]}"], one.network.get_parameter(shared[0]))
