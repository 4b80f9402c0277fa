"""The optimisers: each one keeps what is frozen to the bit, whatever else a training is set to."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acll.config.checks import ConfigurationError, parse
from acll.networks.build import build
from acll.networks.spec import BackboneNetwork, PerceptronNetwork
from acll.training.checkpoint import Checkpoint
from acll.training.learner import TaskLearner
from acll.training.loop import fit
from acll.training.optimizers import WITH_MOMENTUM, WITH_NESTEROV, Optimizer, optimizer_of, why_not
from acll.training.release import Pruning, ReleasePath
from acll.training.settings import Training
from conftest import batches, fit_config, killing, states_equal, tiny_task

NAMES = get_args(Optimizer)
CPU = torch.device("cpu")
RESNET = BackboneNetwork(backbone="resnet_small", width=0.25)
PERCEPTRON = PerceptronNetwork(hidden=[8], image_size=16, channels=3)


def learner(spec, **settings):
    train, validation, info = tiny_task("a", samples=12)
    network = build(spec, "classification", len(info.classes), 0)
    own = batches(**({"batch_size": 4} | settings))
    return TaskLearner(network, train, validation, info, own, CPU)


def start(which):
    return {name: value.clone() for name, value in which.network.state_dict().items()}


def halves(state, seed=0, share=0.5):
    """Masks of weights and of single biases and normalisations."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator) < share
        for name, value in state.items()
        if value.ndim in (1, 2, 4) and name.endswith(("weight", "bias"))
    }


def same_bits(one, other):
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_weights_keep_their_bits_and_a_killed_training_goes_on_to_the_same(tmp_path, name):
    """With all that may move weights; what is free moves."""
    config = fit_config(3, 0.02, 1, optimizer=name, weight_decay=0.5, clip=1.0, ema=0.5)
    path, before = tmp_path / "dense.checkpoint", start(learner(RESNET))
    masks = halves(before)

    def trained(checkpoint=None):
        return fit(learner(RESNET, accumulate=2), before, config, masks, checkpoint).state

    after = trained()
    for weight, mask in masks.items():
        assert same_bits(after[weight][~mask], before[weight][~mask])
        if before[weight].ndim == 4:
            moved = after[weight][mask] != before[weight][mask]
            assert moved.float().mean() > 0.9
    with pytest.raises(KeyboardInterrupt):
        trained(killing(path, "", 2))
    assert states_equal(trained(Checkpoint(path, "")), after)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_released_step_by_step_stays_0(name):
    which = learner(RESNET)
    before = start(which)
    free = {weight: mask for weight, mask in halves(before).items() if mask.ndim == 4}
    path = ReleasePath(Pruning(free, "layer"), 9)
    moves = fit_config(3, 0.02, 1, optimizer=name, weight_decay=0.5)
    after = fit(which, before, moves, free, release=path).state
    for weight, keep in path.keep.items():
        assert same_bits(after[weight][~free[weight]], before[weight][~free[weight]])
        assert not after[weight][free[weight] & ~keep].any()


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    schedule=st.sampled_from(["cosine", "polynomial", "step"]),
    warmup=st.sampled_from([0.0, 0.3]),
    clip=st.sampled_from([None, 0.1, 10.0]),
    ema=st.sampled_from([None, 0.1, 0.99]),
    patience=st.sampled_from([None, 1]),
    weight_decay=st.sampled_from([0.0, 0.5]),
    accumulate=st.integers(1, 4),
    sampling=st.sampled_from(["shuffled", "balanced"]),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    seed=st.integers(0, 2**31),
)
def test_frozen_weights_keep_their_bits_through_all_settings_together(
    name, accumulate, sampling, share, seed, **moves
):
    which = learner(PERCEPTRON, accumulate=accumulate, sampling=sampling)
    before = start(which)
    masks = halves(before, seed, share)
    after = fit(which, before, fit_config(2, 0.02, seed, optimizer=name, **moves), masks).state
    for weight, mask in masks.items():
        assert same_bits(after[weight][~mask], before[weight][~mask])


def test_all_names_of_timm_are_offered_or_refused_for_a_reason():
    from timm.optim import get_optimizer_info, list_optimizers

    names = list_optimizers()
    assert set(NAMES) <= set(names)
    for name in names:
        assert (why_not(name) is None) == (name in NAMES), name
    with_momentum = {name for name in NAMES if get_optimizer_info(name).has_momentum}
    assert set(WITH_MOMENTUM) == with_momentum


@pytest.mark.parametrize(
    "name", ["adamp", "adamuon", "madgrad", "madgradw", "muon", "nadamuon", "nmuon", "sgdp"]
)
def test_those_that_are_refused_since_they_move_frozen_weights_do_so(monkeypatch, name):
    from acll.training import loop

    def refused(network, schedule):
        return optimizer_of(name, network.parameters(), 0.02, 0.9)

    monkeypatch.setattr(loop, "_optimizer", refused)
    which = learner(RESNET)
    before = start(which)
    masks = halves(before)
    after = fit(which, before, fit_config(2, 0.02, 1), masks).state
    assert any(
        not same_bits(after[weight][~mask], before[weight][~mask]) for weight, mask in masks.items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_one_lowers_the_loss(name):
    """Of images whose brightness is their class."""
    which = learner(PERCEPTRON)
    levels = np.arange(12) % 3
    images = torch.from_numpy(100 * levels.astype(np.uint8))[:, None, None, None]
    which.train.images.copy_(images.expand(which.train.images.shape))
    which.train.labels.copy_(torch.from_numpy(levels))
    rate = {"lion": 0.001, "adadelta": 1.0, "lars": 1.0, "nlars": 1.0}.get(name, 0.01)
    history = fit(which, start(which), fit_config(8, rate, 1, optimizer=name)).history
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]


@pytest.mark.parametrize("name", ["lamb", "lars", "nlars", "lambc", "larc", "nlarc"])
def test_steps_go_by_the_norm_of_a_tensor(name):
    """Twice the weights with the same gradients are twice as far from where they were."""
    distances = []
    for factor in (1.0, 2.0):
        weight = torch.nn.Parameter(torch.tensor([[0.003, 0.004]]) * factor)
        before = weight.detach().clone()
        weight.grad = torch.tensor([[0.6, 0.8]])
        optimizer_of(name, [weight], 0.1, 0.9 if name in WITH_MOMENTUM else None).step()
        distances.append(float((weight.detach() - before).norm()))
    assert distances[1] == pytest.approx(2 * distances[0], rel=1e-3)


def fault(**training):
    raw = {
        "name": "one",
        "tasks": {"a": {"source": "digits", "image_size": 16}},
        "networks": {"small": {"backbone": "resnet_small"}},
        "sequences": {"all": {"network": "small", "tasks": ["a"]}},
        "methods": {"half": {"ratio": 0.5}},
        "training": training,
    }
    with pytest.raises(ConfigurationError) as caught:
        parse(raw)
    return str(caught.value)


def test_a_name_that_is_none_here_is_refused_with_its_reason_or_what_is_meant():
    assert fault(optimizer="muon") == (
        'training.optimizer = "muon": timm\'s muon is left out: it mixes the values of a tensor, '
        "so that frozen weights would move"
    )
    assert fault(optimizer="radamw").endswith("which training does itself: use radam")
    assert fault(optimizer="lyon").endswith("(did you mean lion?)")
    assert fault(optimizer="AdaGrad").endswith("(did you mean adagrad?)")
    assert fault(optimizer=3).startswith("training.optimizer = 3: must be 'sgd', 'adamw', ")


def test_momentum_counts_where_an_optimiser_has_it():
    for name in NAMES:
        schedule = Training(optimizer=name, momentum=0.5).for_training()
        assert schedule.momentum == (0.5 if name in WITH_MOMENTUM else None)
    for name in WITH_NESTEROV:
        assert fault(optimizer=name, momentum=0.0) == (
            f"training.momentum = 0.0: must be above 0 with {name}"
        )
