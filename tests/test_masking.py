"""Winning subnetworks and Piggyback: tasks that learn which weights they read."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from acll.methods.base import Before
from acll.methods.finetuning import FineTuning
from acll.methods.piggyback import Piggyback
from acll.methods.wsn import WSN
from acll.networks.build import TaskNetwork, build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork, PerceptronNetwork
from acll.node import DENSE
from acll.packing import packed_file
from acll.packing.ownership import digest, empty, kind_uses, starting_state, task_state_dict
from acll.packing.prune import kept_count
from acll.serving.export import export_task
from acll.serving.model import load
from acll.training.checkpoint import Checkpoint
from acll.training.learner import TaskLearner
from acll.training.loop import fit
from acll.training.masking import (
    LargestScores,
    MaskedNetwork,
    drawn_scores,
    masked_state,
    positive,
    scores_of,
)
from acll.training.metrics import score
from conftest import batches, fit_config, killing, states_equal, tiny_task, usual_record

CPU = torch.device("cpu")
SMALL = BackboneNetwork(backbone="resnet_small", width=0.25)
UNET = DecoderNetwork(decoder="unet", encoder="resnet_small", width=0.25)
CONFIG = fit_config(2, 0.01, 1)
METHODS = {"wsn": WSN(type="wsn", capacity=0.4), "piggyback": Piggyback(type="piggyback")}


def unlearned(spec):
    kind = "segmentation" if isinstance(spec, DecoderNetwork) else "classification"
    whole = build(spec, kind, 2, 0, pretrained=False)
    shared = {name: whole.state_dict()[name] for name in partition(whole).shared}
    return empty(spec.model_dump(mode="json"), shared, "m", 0)


def begun(method, packed, memory, task, spec, seed=0):
    """(the learner of a task, the training that is about to begin)"""
    train, validation, header = task
    pretrained = method.free_from(len(packed.tasks) + 1) == "pretrained"
    network = build(spec, header.kind, len(header.classes), seed, pretrained)
    which = TaskLearner(network, train, validation, header, batches(header.kind, batch_size=4), CPU)
    first = starting_state(packed, header.kind, network.state_dict())
    return which, method.begin([which], first, Before(packed, memory, seed))


def learned(method, packed, memory, task, spec, config=CONFIG, seed=0):
    """(the network with one more task, what the next one gets beside it, the trained state)"""
    which, start = begun(method, packed, memory, task, spec, seed)
    fitted = fit(start.learner, start.state, config, start.masks)
    record = usual_record(which.info, fitted.score, fitted.curve(), {}, packed.width)
    after = method.commit(packed, [record], fitted.state)
    if method.remembers:
        memory = method.remember(which, fitted.state, memory, 0)
    return after, memory, fitted.state


def sequence(method, tasks, spec, config=CONFIG):
    """The packed networks after one task, two, …, and the memory of the last."""
    packed, memory, found = unlearned(spec), {}, []
    for seed, task in enumerate(tasks):
        packed, memory, _ = learned(method, packed, memory, task, spec, config, seed)
        found.append(packed)
    return found, memory


def read_by(packed, task):
    """Which weights a task reads, by name: those that are not 0 in its state."""
    state = task_state_dict(packed, task)
    return {name: state[name] != 0 for name in packed.owner if name in state}


# --------------------------------------------------------------------------------------------------
# masks


def linear(weight):
    """A network of one layer without a bias, images [2, 2] → its outputs."""
    layer = nn.Linear(4, len(weight), bias=False)
    layer.weight.data = torch.tensor(weight)
    return TaskNetwork(nn.Sequential(nn.Flatten(), layer), None, nn.Identity(), 1)


NAME = "encoder.1.weight"
IMAGE = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])


def test_the_largest_scores_of_a_layer_are_read_whatever_their_sign():
    network = linear([[1.0, 10.0, 100.0, 1000.0]])
    scores = {NAME: torch.tensor([[0.1, -0.9, 0.3, -0.2]])}
    masked = MaskedNetwork(network, scores, LargestScores(0.5))
    assert masked(IMAGE).tolist() == [[2 * 10 + 3 * 100]]
    state = masked_state(masked.state_dict())
    assert state.keys() == network.state_dict().keys()
    assert state[NAME].tolist() == [[0, 10, 100, 0]]


def test_gradients_reach_what_is_read_and_the_scores_of_all():
    network = linear([[1.0, 10.0, 100.0, 1000.0]])
    scores = {NAME: torch.tensor([[0.1, -0.9, 0.3, -0.2]])}
    masked = MaskedNetwork(network, scores, LargestScores(0.5))
    masked(IMAGE).sum().backward()
    assert masked.get_parameter(NAME).grad.tolist() == [[0, 2, 3, 0]]
    # of the absolute score: weight times input
    found = masked.get_parameter("scores.encoder/1/weight").grad
    assert found.tolist() == [1, -20, 300, -4000]


def test_scores_with_a_sign_have_the_gradient_of_the_mask():
    network = linear([[1.0, 10.0, 100.0, 1000.0]])
    scores = {NAME: torch.tensor([[0.1, -0.9, 0.3, -0.2]])}
    masked = MaskedNetwork(network, scores, positive, signed=True)
    masked(IMAGE).sum().backward()
    assert masked.get_parameter(NAME).grad.tolist() == [[1, 0, 3, 0]]
    assert masked.get_parameter("scores.encoder/1/weight").grad.tolist() == [1, 20, 300, 4000]


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.25, 3), (0.5, 6), (1.0, 12)])
def test_so_many_weights_of_a_layer_are_read(share, count):
    scores = drawn_scores(torch.zeros(3, 4), torch.Generator().manual_seed(0)).flatten()
    mask = LargestScores(share)(NAME, scores.abs(), exact=True)
    assert int(mask.sum()) == count
    order = scores.abs().argsort(descending=True)
    assert bool(mask[order[:count]].all())


def test_a_mask_of_real_values_is_what_is_above_the_threshold():
    assert positive(NAME, torch.tensor([-1.0, 0.0, 1e-9, 2.0]), exact=True).tolist() == [0, 0, 1, 1]


def test_a_mask_over_fixed_weights_finds_those_that_are_wrong():
    """Of two outputs, each the sum of the inputs of its class; one weight of each points to the
    other class, and is larger than all others together."""
    images = torch.randint(0, 256, (64, 1, 2, 2), dtype=torch.uint8)
    labels = torch.arange(64) % 2
    images[labels == 0, :, 1] //= 4
    images[labels == 1, :, 0] //= 4
    right = [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    network = linear([[1.0, 1.0, 5.0, 0.0], [5.0, 0.0, 1.0, 1.0]])
    train, _, header = tiny_task("t", classes=2, size=2)
    split = replace(train, images=images, labels=labels)
    header = replace(header, mean=(0.0,), std=(1.0,))
    start = {NAME: torch.full((2, 4), 0.1)}
    masked = MaskedNetwork(network, start, positive, signed=True)
    own = TaskLearner(masked, split, split, header, batches(batch_size=16), CPU)
    fixed = {NAME: torch.zeros(2, 4, dtype=torch.bool)}
    state = masked.start(network.state_dict())
    assert score(own.validate()[0]) < 0.5
    config = fit_config(30, 0.01, 1, weight_decay=0.0)
    after = masked_state(fit(own, state, config, fixed).state)
    assert after[NAME].tolist() == right


def pretrained(spec, folder):
    """The network of a specification that starts from weights of a file."""
    known = build(spec, "classification", 2, 77).encoder.state_dict()
    path = folder / "weights.safetensors"
    save_file(known, path)
    return spec.model_copy(update={"weights": str(path)}), known


# --------------------------------------------------------------------------------------------------
# both methods


@pytest.mark.parametrize("name", METHODS)
@given(
    hidden=st.lists(st.integers(1, 8), min_size=1, max_size=2),
    tasks=st.integers(2, 4),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    optimizer=st.sampled_from(["sgd", "adamw"]),
)
@settings(max_examples=10, deadline=None)
def test_earlier_tasks_stay_as_they_are_bit_for_bit(
    tmp_path_factory, name, hidden, tasks, share, optimizer
):
    path = tmp_path_factory.mktemp("files") / "network.safetensors"
    spec = PerceptronNetwork(hidden=hidden, image_size=[4, 4], channels=3)
    method = WSN(type="wsn", capacity=share) if name == "wsn" else Piggyback(type="piggyback")
    config = fit_config(2, 0.05, 1, optimizer=optimizer, weight_decay=0.1)
    learning = [tiny_task(f"t{index}", size=4) for index in range(tasks)]
    found, _ = sequence(method, learning, spec, config)
    for count, packed in enumerate(found, 1):
        packed_file.write_packed(path, packed)
        opened = packed_file.open_packed(path)
        for record in packed.tasks:
            when_learned = found[packed.position(record.name) - 1]
            state = task_state_dict(when_learned, record.name)
            assert states_equal(task_state_dict(packed, record.name), state)
            assert states_equal(opened.state(record.name), state)
            assert record.digest == digest(state)
        assert len(packed.tasks) == count


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kinds", ["cs", "sc", "ss"])
def test_both_kinds_of_tasks_in_one_network_and_what_is_loaded_is_what_was_learned(
    tmp_path, name, kinds
):
    words = {"c": "classification", "s": "segmentation"}
    tasks = [
        tiny_task(f"{kind}{index}", words[kind], samples=8) for index, kind in enumerate(kinds)
    ]
    found, _ = sequence(METHODS[name], [*tasks, tiny_task("last", "segmentation")], UNET)
    path = tmp_path / "network.safetensors"
    packed_file.write_packed(path, found[-1])
    opened = packed_file.open_packed(path)
    for count, task in enumerate((header.name for _, _, header in tasks), 1):
        state = task_state_dict(found[count - 1], task)
        assert states_equal(load(path).network(task).state_dict(), state)
        export_task(opened, task, tmp_path / f"{task}.safetensors", "float32", None)
        alone = load(tmp_path / f"{task}.safetensors").network(task)
        assert states_equal(alone.state_dict(), state)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_committed_does_what_was_validated(name):
    packed, memory = unlearned(UNET), {}
    for task in (tiny_task("a"), tiny_task("b", "segmentation"), tiny_task("c", "segmentation")):
        which, start = begun(METHODS[name], packed, memory, task, UNET)
        fitted = fit(start.learner, start.state, fit_config(1, 0.01, 1), start.masks)
        images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        expected = start.learner.network.eval()(images)
        record = usual_record(which.info, fitted.score, (), {}, packed.width)
        packed = METHODS[name].commit(packed, [record], fitted.state)
        if METHODS[name].remembers:
            memory = METHODS[name].remember(which, fitted.state, memory, 0)
        network = build(UNET, which.info.kind, 3, 9, pretrained=False)
        network.load_state_dict(task_state_dict(packed, task[2].name))
        torch.testing.assert_close(network.eval()(images), expected)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("writes", [1, 3])
def test_a_training_that_was_killed_goes_on_to_the_same_bits(tmp_path, name, writes):
    method, config = METHODS[name], fit_config(4, 0.05, 1)
    (packed,), memory = sequence(method, [tiny_task("a")], SMALL)
    task = tiny_task("b", samples=30)

    def training():
        _, start = begun(method, packed, memory, task, SMALL)
        return start.learner, start.state, config, start.masks

    expected = fit(*training())
    with pytest.raises(KeyboardInterrupt):
        fit(*training(), killing(tmp_path / "c", "", writes))
    resumed = fit(*training(), Checkpoint(tmp_path / "c", ""))
    assert states_equal(resumed.state, expected.state)
    assert resumed.history == expected.history


# --------------------------------------------------------------------------------------------------
# winning subnetworks


def test_a_subnetwork_of_everything_is_plain_training_bit_for_bit():
    task = tiny_task("a", samples=30)
    plain, _, _ = learned(FineTuning(type="finetuning"), unlearned(SMALL), {}, task, SMALL)
    whole, _, _ = learned(WSN(type="wsn", capacity=1.0), unlearned(SMALL), {}, task, SMALL)
    assert states_equal(task_state_dict(whole, "a"), task_state_dict(plain, "a"))
    assert all(bool((owner == 1).all()) for owner in whole.owner.values())


def test_a_task_reads_its_share_of_each_layer_and_owns_what_nobody_owned():
    tasks = [tiny_task(name, samples=30) for name in "abc"]
    found, _ = sequence(METHODS["wsn"], tasks, SMALL, fit_config(3, 0.02, 1))
    owned = {name: torch.zeros(owner.shape, dtype=bool) for name, owner in found[0].owner.items()}
    reused = 0
    for position, (packed, task) in enumerate(zip(found, "abc", strict=True), 1):
        for name, read in read_by(packed, task).items():
            assert int(read.sum()) == max(1, kept_count(read.numel(), 1 - 0.4))
            assert torch.equal(packed.owner[name] == position, read & ~owned[name])
            reused += int((read & owned[name]).sum())
            owned[name] |= read
    assert reused


def test_scores_and_free_weights_go_on_from_the_task_before():
    (packed,), memory = sequence(METHODS["wsn"], [tiny_task("a", samples=30)], SMALL)
    _, _, trained = learned(METHODS["wsn"], unlearned(SMALL), {}, tiny_task("a", samples=30), SMALL)
    _, start = begun(METHODS["wsn"], packed, memory, tiny_task("b"), SMALL, seed=5)
    scores = scores_of(trained)
    assert scores.keys() == packed.owner.keys()
    for name, value in scores_of(start.state).items():
        assert torch.equal(value, scores[name])
        assert torch.equal(start.state[name], trained[name])


def test_scores_of_a_part_that_no_task_has_used_are_new():
    (packed,), memory = sequence(METHODS["wsn"], [tiny_task("a")], UNET)
    task = tiny_task("m", "segmentation")
    drawn = [
        scores_of(begun(METHODS["wsn"], packed, memory, task, UNET, seed)[1].state)
        for seed in (5, 5, 6)
    ]
    for name, value in drawn[0].items():
        assert torch.equal(value, drawn[1][name])
        assert torch.equal(value, drawn[2][name]) == name.startswith("encoder.")


def test_where_weights_are_given_the_largest_are_read_first(tmp_path):
    spec, known = pretrained(SMALL, tmp_path)
    _, start = begun(METHODS["wsn"], unlearned(spec), {}, tiny_task("a"), spec)
    for name, scores in scores_of(start.state).items():
        assert torch.equal(scores, known[name.removeprefix("encoder.")].flatten())


def test_what_is_remembered_of_a_decoder_stays_while_a_task_does_not_use_it():
    tasks = [tiny_task("m", "segmentation"), tiny_task("a")]
    _, after = sequence(METHODS["wsn"], tasks, UNET)
    _, before = sequence(METHODS["wsn"], tasks[:1], UNET)
    assert after.keys() == before.keys()
    for name, value in before.items():
        if not kind_uses("classification", name.removeprefix("score.")):
            assert torch.equal(after[name], value)


# --------------------------------------------------------------------------------------------------
# Piggyback


def bright(name, flip=False, samples=32):
    """A task whose classes are dark and bright images."""
    train, _, header = tiny_task(name, classes=2, samples=samples)
    labels = torch.arange(samples) % 2
    images = train.images // 4 + (170 * (labels ^ flip))[:, None, None, None]
    split = replace(train, images=images.to(torch.uint8), labels=labels)
    return split, split, header


def test_the_first_task_is_trained_plainly_and_owns_all():
    task = tiny_task("a", samples=30)
    plain, _, _ = learned(FineTuning(type="finetuning"), unlearned(SMALL), {}, task, SMALL)
    own, _, _ = learned(METHODS["piggyback"], unlearned(SMALL), {}, task, SMALL)
    assert METHODS["piggyback"].shared_first(SMALL) == DENSE
    assert states_equal(task_state_dict(own, "a"), task_state_dict(plain, "a"))
    assert all(bool((owner == 1).all()) for owner in own.owner.values())


def test_later_tasks_own_no_weight_and_read_what_is_fixed_as_it_is_or_not_at_all():
    tasks = [tiny_task(name, samples=30) for name in "abc"]
    found, _ = sequence(METHODS["piggyback"], tasks, SMALL, fit_config(6, 0.02, 1))
    fixed = task_state_dict(found[0], "a")
    for task in "bc":
        assert found[-1].record(task).owned == 0
        state = task_state_dict(found[-1], task)
        left_out = 0
        for name, read in read_by(found[-1], task).items():
            assert torch.equal(state[name][read], fixed[name][read])
            left_out += int((~read).sum())
        assert left_out


def test_a_task_like_the_first_scores_as_well():
    config = fit_config(6, 0.01, 1)
    found, _ = sequence(METHODS["piggyback"], [bright("a"), bright("b")], SMALL, config)
    scores = [record.validation_score for record in found[-1].tasks]
    assert scores == [1.0, 1.0]


@pytest.mark.parametrize("spec", [SMALL, pytest.param(UNET, marks=pytest.mark.slow)])
def test_weights_that_are_given_are_what_is_fixed(tmp_path, spec):
    spec, known = pretrained(spec, tmp_path)
    assert METHODS["piggyback"].shared_first(spec) is None
    tasks = [tiny_task(name, samples=30) for name in "abc"]
    found, _ = sequence(METHODS["piggyback"], tasks, spec, fit_config(6, 0.02, 1))
    left_out = 0
    for task in "abc":
        state = task_state_dict(found[-1], task)
        for name, read in read_by(found[-1], task).items():
            given = known[name.removeprefix("encoder.")]
            assert torch.equal(state[name][read], given[read])
            left_out += int((~read).sum())
    assert left_out
    for name in read_by(found[-1], "a"):
        union = torch.stack([read_by(found[-1], task)[name] for task in "abc"]).any(dim=0)
        assert torch.equal(found[-1].owner[name] > 0, union)


def test_from_given_weights_a_task_learns_the_same_whatever_came_before(tmp_path):
    spec, _ = pretrained(SMALL, tmp_path)
    last = tiny_task("z", samples=30)
    states = []
    for earlier in ([], ["a"], ["b", "a"]):
        packed, memory = unlearned(spec), {}
        for name in earlier:
            packed, memory, _ = learned(METHODS["piggyback"], packed, memory, tiny_task(name), spec)
        packed, _, _ = learned(METHODS["piggyback"], packed, memory, last, spec, seed=3)
        states.append(task_state_dict(packed, "z"))
    assert states_equal(states[0], states[1])
    assert states_equal(states[0], states[2])


def test_a_decoder_is_fixed_as_its_first_task_has_trained_it(tmp_path):
    spec, _ = pretrained(UNET, tmp_path)
    tasks = [tiny_task("a")] + [tiny_task(name, "segmentation", samples=8) for name in "mn"]
    found, _ = sequence(METHODS["piggyback"], tasks, spec, fit_config(4, 0.02, 1))
    decoder = [name for name in found[0].owner if name.startswith("decoder.")]
    first, second = (task_state_dict(found[-1], task) for task in "mn")
    for name in decoder:
        assert bool((found[1].owner[name] == 2).all())
        read = second[name] != 0
        assert torch.equal(second[name][read], first[name][read])
