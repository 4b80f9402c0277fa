"""On a GPU: what is frozen stays to the bit, trainings are repeatable and go on after a kill, and
what was trained there is used elsewhere. Needs a card, and little else: `pytest tests/test_cuda.py`
"""

import numpy as np
import pytest
import torch

import acll
from acll.data import prepared
from acll.data.batches import training_batches
from acll.data.prepared import Content, write_prepared
from acll.evaluation.score import evaluate
from acll.methods.base import Before
from acll.methods.ewc import EWC, fisher
from acll.methods.lwf import LwF
from acll.methods.packing import Packing
from acll.methods.piggyback import Piggyback
from acll.methods.wsn import WSN
from acll.networks.build import build
from acll.networks.channels import ChannelGraph
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.packing.load import restore_network
from acll.packing.ownership import commit, digest, empty, free, starting_state
from acll.packing.packed_file import read_packed, write_packed
from acll.search.retraining import Retraining, trial_runner
from acll.settings import AUGMENTATIONS, MIXING
from acll.training.checkpoint import Checkpoint, snapshot
from acll.training.evaluate import evaluated
from acll.training.joint import JointLearner
from acll.training.learned import Scored, release_learned
from acll.training.learner import TaskLearner
from acll.training.loop import fit
from acll.training.losses import loss_of
from acll.training.metrics import score
from acll.training.process import prepare_process
from acll.training.release import Pruning
from conftest import (
    batches,
    fit_config,
    kept_counts,
    killing,
    states_equal,
    tiny_task,
    usual_record,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SPECS = {
    "classification": BackboneNetwork(backbone="resnet_small"),
    "segmentation": DecoderNetwork(decoder="unet", encoder="resnet_small"),
}
LOSSES = [
    ("classification", {"label_smoothing": 0.1}),
    ("segmentation", {"label_smoothing": 0.1}),
    ("segmentation", {"class_weights": "balanced"}),
    ("segmentation", {"loss": "cross_entropy_dice"}),
]


@pytest.fixture(autouse=True)
def _as_in_a_step():
    prepare_process(2)


def learner(kind="classification", device=CUDA, name="a", **settings):
    train, validation, header = tiny_task(name, kind, size=32, samples=24)
    network = build(SPECS[kind], kind, len(header.classes), 0)
    own = {"batch_size": 8, "augmentation": ["flip", "shift", "brightness"]} | settings
    return TaskLearner(network, train, validation, header, batches(kind, **own), device)


def half(state, network):
    generator = torch.Generator().manual_seed(0)
    names = partition(network).shared
    return {name: torch.rand(state[name].shape, generator=generator) < 0.5 for name in names}


def test_a_network_is_built_without_the_random_state_of_the_device():
    torch.cuda.manual_seed_all(7)
    before = torch.cuda.get_rng_state_all()
    build(SPECS["classification"], "classification", 3, 0)
    assert all(map(torch.equal, before, torch.cuda.get_rng_state_all()))


@pytest.mark.parametrize(("kind", "settings"), LOSSES)
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_the_same_training_gives_the_same_bits_and_frozen_weights_keep_theirs(
    kind, settings, mixed_precision
):
    which = learner(kind, mixed_precision=mixed_precision, **settings)
    start = snapshot(which.network.state_dict())
    masks = half(start, which.network)
    config = fit_config(2, 0.01, 1)
    first, again = (fit(which, start, config, masks) for _ in range(2))
    assert states_equal(first.state, again.state)
    assert first.history == again.history
    for name, mask in masks.items():
        assert torch.equal(first.state[name][~mask], start[name][~mask])
        assert not torch.equal(first.state[name][mask], start[name][mask])


@pytest.mark.parametrize("kind", SPECS)
def test_a_killed_training_goes_on_to_the_same_bits(kind, tmp_path):
    which = learner(kind)
    start = snapshot(which.network.state_dict())
    config = fit_config(3, 0.01, 1)
    alone = fit(which, start, config)
    checkpoint = Checkpoint(tmp_path / "a", "key")
    with pytest.raises(KeyboardInterrupt):
        fit(which, start, config, checkpoint=killing(checkpoint.path, "key"))
    fresh = learner(kind)
    resumed = fit(fresh, start, config, checkpoint=checkpoint)
    assert states_equal(resumed.state, alone.state)
    assert resumed.history == alone.history


def test_a_checkpoint_of_a_gpu_is_no_other_training_on_a_cpu(tmp_path, capsys):
    on_card, beside = learner(), learner(device=CPU)
    start = snapshot(on_card.network.state_dict())
    checkpoint = Checkpoint(tmp_path / "a", "key")
    with pytest.raises(KeyboardInterrupt):
        fit(on_card, start, fit_config(2, 0.01, 1), None, killing(checkpoint.path, "key"))
    alone = fit(learner(device=CPU), start, fit_config(2, 0.01, 1))
    capsys.readouterr()
    found = fit(beside, start, fit_config(2, 0.01, 1), None, checkpoint)
    assert "goes on" not in capsys.readouterr().out
    assert states_equal(found.state, alone.state)


@pytest.mark.parametrize("kind", SPECS)
def test_batches_are_those_of_a_cpu(kind):
    which = learner(kind)
    settings = which.settings
    loads = (
        training_batches(
            which.train, which.info, settings.batch_size, settings.augmentation, 1, 0, device
        )
        for device in (CUDA, CPU)
    )
    for (images, labels), (others, same) in zip(*loads, strict=True):
        assert images.is_cuda
        torch.testing.assert_close(images.cpu(), others, rtol=1e-4, atol=1e-4)
        assert torch.equal(labels.cpu(), same)


@pytest.mark.parametrize("kind", SPECS)
def test_all_augmentation_is_repeated_and_is_that_of_a_cpu(kind):
    train, _, header = tiny_task("a", kind, size=32, samples=24)
    names = [name for name in AUGMENTATIONS if kind == "classification" or name not in MIXING]
    first, again, on_cpu = (
        list(training_batches(train, header, 8, names, 1, 0, device))
        for device in (CUDA, CUDA, CPU)
    )
    for (images, labels), (same_images, same_labels), (others, theirs) in zip(
        first, again, on_cpu, strict=True
    ):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
        # a value beside a threshold may fall to its other side
        assert torch.isclose(images.cpu(), others, atol=1e-3).float().mean() > 0.95
        assert torch.isclose(labels.cpu().float(), theirs.float(), atol=1e-3).float().mean() > 0.95


@pytest.mark.parametrize(("kind", "settings"), LOSSES)
def test_losses_are_those_of_a_cpu(kind, settings):
    generator = torch.Generator().manual_seed(0)
    size = (8, 8) if kind == "segmentation" else ()
    logits = torch.randn(4, 3, *size, generator=generator)
    labels = torch.randint(0, 3, (4, *size), generator=generator)
    if size:
        labels[:2] = prepared.IGNORE
    weights = torch.tensor([0.5, 1.0, 1.5])
    own = batches(kind, **settings)
    on_cpu = loss_of(kind, own, weights)(logits, labels)
    on_card = loss_of(kind, own, weights.to(CUDA))(logits.to(CUDA), labels.to(CUDA))
    torch.testing.assert_close(on_card.cpu(), on_cpu)


def committed(packed, which, seed):
    """Train, release by channel, retrain and commit one more task, as the steps do."""
    kind = which.info.kind
    masks = free(packed, kind)
    start = starting_state(packed, kind, snapshot(which.network.state_dict()))
    channels = ChannelGraph(which.network, which.some_images())
    dense = fit(which, start, fit_config(2, 0.01, seed), masks).state
    # the network lies on the card by now
    smaller, keep = Pruning(masks, "channel", channels).at_once(dense, 0.5)
    result = fit(which, smaller, fit_config(2, 0.01, seed), keep)
    record = usual_record(which.info, result.score, (), {"ratio": 0.5})
    return commit(packed, record, result.state, keep), result


def dense_by_scores(packed, which, seed):
    """What chooses, the training that learned scores, and what it ended with."""
    start = starting_state(packed, which.info.kind, snapshot(which.network.state_dict()))
    rule = Packing(ratio=0.5).training_rule()
    begun = rule.begin([which], start, Before(packed, {}, seed))
    scored = Scored(free(packed, which.info.kind), "chosen")
    return scored, begun, fit(begun.learner, begun.state, fit_config(2, 0.01, seed), begun.masks)


def committed_by_scores(packed, which, seed):
    """Train with scores, shrink the share that is read, retrain and commit, as the steps do."""
    scored, _, dense = dense_by_scores(packed, which, seed)
    config = fit_config(2, 0.01, seed)
    smaller = release_learned(which, dense.state, scored, 0.2, config, lambda own: own)
    result = fit(scored.learner(which, 0.2), smaller, config, dict(scored.free))
    state, keep = scored.finished(result.state)
    record = usual_record(which.info, result.score, (), {"ratio": 0.8})
    return commit(packed, record, state, keep, "chosen"), result


def nothing(kind):
    state = build(SPECS[kind], kind, 2, 0).state_dict()
    shared = {name: state[name] for name in partition(build(SPECS[kind], kind, 2, 0)).shared}
    return empty(SPECS[kind].model_dump(mode="json"), shared, "packing", 0)


def prepared_test(which, folder):
    labels = which.validation.labels.numpy()
    masks = which.info.kind == "segmentation"
    content = Content(
        [str(number) for number in range(len(which.validation))],
        list(which.validation.images.numpy()),
        "uint8",
        3,
        None if masks else labels,
        list(labels) if masks else None,
    )
    path = folder / f"{which.info.name}{prepared.TEST}"
    write_prepared(path, which.info, {"test": content})
    return path


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("commits", [committed, committed_by_scores])
def test_a_second_task_changes_nothing_of_the_first_and_the_file_is_used_on_both(
    kind, commits, tmp_path, monkeypatch
):
    monkeypatch.setitem(prepared._allowed, "test", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as exact as a CPU
    first, second = learner(kind, name="first"), learner(kind, name="second")
    before, _ = commits(nothing(kind), first, 1)
    after, _ = commits(before, second, 2)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(CUDA)
    with torch.no_grad():
        outputs = [
            restore_network(packed, "first")[0].to(CUDA)(images) for packed in (before, after)
        ]
    assert torch.equal(*outputs)

    path = tmp_path / "network.safetensors"
    write_packed(path, after)
    packed = read_packed(path)
    tests = {which.info.name: prepared_test(which, tmp_path) for which in (first, second)}
    scores = [[row.score for row in evaluate(packed, tests, d).rows] for d in (CUDA, CPU)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01 if kind == "segmentation" else 0)
    assert all(row.bit_exact for row in evaluate(packed, tests, CUDA).rows)

    pictures = list(second.validation.images.numpy().transpose(0, 2, 3, 1))
    opened = acll.load(path)
    there, here = (opened.predict("second", pictures, device=d) for d in ("cuda", "cpu"))
    network = opened.network("second").to(CUDA)
    seen = evaluated(network, second.validation, second.info, CUDA)
    if kind == "classification":
        assert [one.label for one in there] == [one.label for one in here]
        said = [second.info.classes.index(one.label) for one in there]
        truth = second.validation.labels.numpy()
        assert np.array_equal(truth * seen.classes + said, seen.cells)
    else:
        assert np.mean([np.mean(a.mask == b.mask) for a, b in zip(there, here)]) > 0.99


def test_a_trial_is_repeatable():
    which = learner()
    state = snapshot(which.network.state_dict())
    names = partition(which.network).shared
    masks = {name: torch.ones(state[name].shape, dtype=torch.bool) for name in names}
    channels = ChannelGraph(which.network, which.some_images())
    schedule, pruning = fit_config(4, 0.01, 1).schedule, Pruning(masks, "channel", channels)
    first, second = (
        trial_runner(Retraining(which, schedule, state, pruning, "gradual", True, (1, 2)))(0.3, 0.0)
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("distill", [False, True])
def test_a_trial_by_scores_is_repeatable_and_hands_over_what_was_scored(distill):
    which, found = learner(), []
    scored, _, dense = dense_by_scores(nothing("classification"), which, 1)
    schedule = fit_config(4, 0.01, 1).schedule
    retraining = Retraining(which, schedule, dense.state, scored, "gradual", distill, (1, 2))
    run_trial = trial_runner(retraining, lambda *held: found.append(held))
    assert run_trial(1.0, None).score == dense.score
    first, second = (run_trial(0.1, 0.0) for _ in range(2))
    assert first == second
    (_, one, keep), (_, other, same) = found
    assert states_equal(one.state, other.state)
    assert states_equal(keep, same)
    kept = {name: int(mask.sum()) for name, mask in keep.items()}
    assert kept == kept_counts({name: mask.numel() for name, mask in keep.items()}, 0.9)
    network = build(SPECS["classification"], "classification", 3, 9)
    network.load_state_dict(one.state)
    seen = evaluated(network.to(CUDA), which.validation, which.info, CUDA)
    assert score(seen) == first.score


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_scores_are_learned_to_the_same_bits_after_a_kill_too(kind, mixed_precision, tmp_path):
    def trained(checkpoint=None):
        which = learner(kind, mixed_precision=mixed_precision)
        packed = nothing(kind)
        start = starting_state(packed, kind, snapshot(which.network.state_dict()))
        begun = Packing(ratio=0.5).training_rule().begin([which], start, Before(packed, {}, 0))
        own = fit_config(3, 0.01, 1)
        return fit(begun.learner, begun.state, own, begun.masks, checkpoint)

    alone = trained()
    with pytest.raises(KeyboardInterrupt):
        trained(killing(tmp_path / "a", "key"))
    resumed = trained(Checkpoint(tmp_path / "a", "key"))
    assert states_equal(resumed.state, alone.state)
    assert resumed.history == alone.history


def test_other_methods_train_on_a_gpu():
    first, second = learner(name="first"), learner(name="second")
    packed, _ = committed(nothing("classification"), first, 1)
    start = starting_state(packed, "classification", snapshot(second.network.state_dict()))
    memory = fisher(first, 0)
    assert all(not value.is_cuda for value in memory.values())
    others = (LwF(type="lwf"), WSN(type="wsn"), Piggyback(type="piggyback"))
    for method, own in ((EWC(type="ewc"), memory), *((other, {}) for other in others)):
        which = learner(name="second")
        begun = method.begin([which], start, Before(packed, own, 0))
        config = fit_config(1, 0.01, 1)
        results = [fit(begun.learner, begun.state, config, begun.masks) for _ in range(2)]
        assert digest(results[0].state) == digest(results[1].state)
    joint = JointLearner((first, second), tuple(packed.shared))
    state = snapshot(joint.network.state_dict())
    results = [fit(joint, state, fit_config(1, 0.01, 1)) for _ in range(2)]
    assert digest(results[0].state) == digest(results[1].state)
    shared = next(iter(packed.shared))
    assert torch.equal(results[0].state[f"0.{shared}"], results[0].state[f"1.{shared}"])
