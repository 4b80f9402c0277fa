"""The methods: each on cases with a known outcome."""

import io
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter

from acll.data.batches import normalised
from acll.methods import ewc
from acll.methods.base import Before
from acll.methods.ewc import EWC, fisher
from acll.methods.finetuning import FineTuning
from acll.methods.frozen import Frozen
from acll.methods.joint import Joint
from acll.methods.lwf import LwF, distillation
from acll.methods.packing import Packing
from acll.methods.registry import METHODS, RuleOfMethod, method
from acll.networks.build import build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.node import DENSE, LEARNED
from acll.packing.ownership import commit, digest, empty, starting_state, task_state_dict
from acll.plan import SHARED_FIRST
from acll.registry import kinds
from acll.training.checkpoint import Checkpoint
from acll.training.learner import TaskLearner
from acll.training.loop import fit
from conftest import batches, fit_config, states_equal, tiny_task, usual_record

CPU = torch.device("cpu")
SMALL = BackboneNetwork(backbone="resnet_small")
UNET = DecoderNetwork(decoder="unet", encoder="resnet_small")
A, B = tiny_task("a", samples=16), tiny_task("b", samples=16, classes=4)
MASKS = tiny_task("m", "segmentation", samples=8)
CONFIG = fit_config(2, 0.01, 1)
NO_DECAY = fit_config(2, 0.01, 1, weight_decay=0.0)


def learner(task, network=SMALL):
    train, validation, header = task
    own = build(network, header.kind, len(header.classes), 0)
    return TaskLearner(own, train, validation, header, batches(header.kind, batch_size=4), CPU)


def network_of(*tasks):
    return UNET if any(header.kind == "segmentation" for _, _, header in tasks) else SMALL


def unlearned(network=SMALL):
    whole = build(network, "segmentation" if network is UNET else "classification", 2, 0)
    return empty(
        network.model_dump(),
        {name: whole.state_dict()[name] for name in partition(whole).shared},
        "m",
        0,
    )


def start_of(which, before):
    return starting_state(before, which.info.kind, which.network.state_dict())


def learned(method, before, task, network=SMALL, config=CONFIG, memory=None):
    """One more task by a method: (the network with it, what was trained, its first state)."""
    which = learner(task, network)
    rule = method.training_rule()
    start = rule.begin([which], start_of(which, before), Before(before, memory or {}, 0))
    fitted = fit(start.learner, start.state, config, start.masks)
    record = usual_record(which.info, fitted.score, fitted.curve(), {})
    return method.commit(before, [record], fitted.state), fitted, start.state


def finetuned(before, task, network=SMALL, config=CONFIG):
    """Plain fine-tuning: (the network with one more task, what was trained)."""
    return learned(FineTuning(type="finetuning"), before, task, network, config)[:2]


def distilled(before, task, method, network=SMALL, config=CONFIG):
    return learned(method, before, task, network, config)[:2]


def outputs(packed, task, images):
    record = packed.record(task)
    spec = UNET if "decoder" in packed.network else SMALL
    network = build(spec, record.kind, len(record.classes), 9, pretrained=False)
    network.load_state_dict(task_state_dict(packed, task))
    with torch.no_grad():
        return network.eval()(images)


IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


# --------------------------------------------------------------------------------------------------
# learning without forgetting


@pytest.mark.parametrize("second", [B, MASKS])
def test_lwf_without_strength_is_fine_tuning(second):
    network = network_of(second)
    before, _ = finetuned(unlearned(network), A, network)
    plain, fitted = finetuned(before, second, network)
    same, other = distilled(before, second, LwF(type="lwf", strength=0), network)
    assert fitted.history == other.history
    for task in ("a", second[2].name):
        assert states_equal(task_state_dict(plain, task), task_state_dict(same, task))


@pytest.mark.parametrize(
    ("first", "second"),
    [(A, B), *(pytest.param(*both, marks=pytest.mark.slow) for both in [(A, MASKS), (MASKS, A)])],
)
def test_lwf_keeps_the_outputs_of_earlier_tasks_nearer_the_stronger_it_is(first, second):
    network = network_of(first, second)
    before, _ = finetuned(unlearned(network), first, network)
    name = first[2].name
    # outputs are kept on the new task's images
    images = normalised(second[0].images, second[2], CPU)
    wanted = outputs(before, name, images).softmax(dim=1)

    def off(strength):
        method, config = LwF(type="lwf", strength=strength), fit_config(20, 0.01, 1)
        after, _ = distilled(before, second, method, network, config)
        return float((outputs(after, name, images).softmax(dim=1) - wanted).abs().mean())

    assert off(10) < 0.9 * off(0)


def test_lwf_trains_the_heads_of_earlier_tasks_and_leaves_their_number():
    before, _ = finetuned(unlearned(), A)
    after, _ = distilled(before, B, LwF(type="lwf"))
    assert set(after.private["a"]) == set(before.private["a"])
    assert not torch.equal(
        after.private["a"]["head.2.weight"], before.private["a"]["head.2.weight"]
    )
    third, _ = distilled(after, tiny_task("c", samples=16), LwF(type="lwf"))
    assert [record.name for record in third.tasks] == ["a", "b", "c"]
    assert [third.private[task]["head.2.weight"].shape[0] for task in "abc"] == [3, 4, 3]


def test_lwf_does_not_touch_the_network_that_it_starts_from():
    before, _ = finetuned(unlearned(), A)
    then = digest(task_state_dict(before, "a"))
    distilled(before, B, LwF(type="lwf"))
    assert digest(task_state_dict(before, "a")) == then


def test_distillation_is_least_where_outputs_agree():
    targets = torch.tensor([[1.0, 2.0, 3.0]])
    agreeing = distillation(targets, targets, 2.0)
    softened = (targets / 2).softmax(dim=1)
    assert agreeing == pytest.approx(float(-(softened * softened.log()).sum()))  # its entropy
    assert distillation(torch.tensor([[3.0, 2.0, 1.0]]), targets, 2.0) > agreeing


# --------------------------------------------------------------------------------------------------
# elastic weight consolidation


def consolidated(before, task, importance, strength):
    method = EWC(type="ewc", strength=strength)
    return learned(method, before, task, config=NO_DECAY, memory=importance)[1:]


@pytest.fixture(scope="module")
def one_task():
    """A network that has learned a, and the information that a has of it."""
    before, _ = finetuned(unlearned(), A, config=NO_DECAY)
    which = learner(A)
    which.network.load_state_dict(task_state_dict(before, "a"))
    return before, fisher(which, 0)


def test_ewc_without_strength_is_fine_tuning(one_task):
    before, importance = one_task
    _, plain = finetuned(before, B, config=NO_DECAY)
    fitted, _ = consolidated(before, B, importance, 0.0)
    assert states_equal(fitted.state, plain.state)


def test_ewc_moves_what_is_important_less_the_stronger_it_is(one_task):
    before, importance = one_task

    def moved(strength):
        fitted, start = consolidated(before, B, importance, strength)
        return sum(
            float((importance[name] * (fitted.state[name] - start[name]) ** 2).sum())
            for name in importance
        )

    weak, middle, strong = moved(0), moved(1e3), moved(1e6)
    assert strong < middle < weak


def test_the_information_is_that_of_a_linear_model():
    """Of logits W x the squared gradient is (1 - p)² x² for the label drawn, p² x² for the other:
    here p is a half."""
    from acll.data.batches import normalised
    from acll.networks.build import TaskNetwork

    train, validation, header = tiny_task("t", classes=2, samples=1, size=2)
    body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2, bias=False))
    torch.nn.init.zeros_(body[1].weight)
    which = TaskLearner(
        TaskNetwork(body, None, torch.nn.Identity()), train, validation, header, batches(), CPU
    )
    x = normalised(train.images, header, CPU).flatten()
    found = fisher(which, 0)["encoder.1.weight"]
    torch.testing.assert_close(found, (0.25 * x.square()).expand(2, -1), rtol=1e-5, atol=1e-6)


def test_the_information_has_every_parameter_but_the_heads_and_is_repeatable(one_task):
    before, importance = one_task
    which = learner(A)
    which.network.load_state_dict(task_state_dict(before, "a"))
    body = {name for name, _ in which.network.named_parameters() if not name.startswith("head.")}
    assert set(importance) == body
    assert all((value >= 0).all() for value in importance.values())
    assert states_equal(fisher(which, 0), importance)


def test_information_adds_up_over_tasks_and_parts(monkeypatch):
    one = {"encoder.w": torch.ones(2)}
    two = {"encoder.w": torch.full((2,), 3.0), "decoder.w": torch.ones(1)}
    for earlier, own in ((one, two), (two, one)):
        monkeypatch.setattr(ewc, "fisher", lambda which, seed, own=own: own)
        together = EWC.remember(None, {}, earlier, 0)
        found = {name: value.tolist() for name, value in together.items()}
        assert found == {"encoder.w": [4, 4], "decoder.w": [1]}


def test_what_ewc_remembers_of_a_first_task_is_its_information(one_task):
    before, importance = one_task
    which = learner(A)
    which.network.load_state_dict(task_state_dict(before, "a"))
    assert states_equal(EWC.remember(which, {}, {}, 0), importance)


# --------------------------------------------------------------------------------------------------
# joint training, individual networks, frozen features


def joint_of(tasks, network=SMALL):
    learners = [learner(task, network) for task in tasks]
    before = unlearned(network)
    first = start_of(learners[0], before)
    start = Joint(type="joint").begin(learners, first, Before(before, {}, 0))
    assert states_equal(start.state, start.learner.network.state_dict())
    assert start.masks == {}
    return start.learner, before


@pytest.mark.parametrize("tasks", [(A, B), (A, MASKS)])
def test_joint_training_shares_all_weights_and_nothing_else(tasks):
    network = network_of(*tasks)
    joint, before = joint_of(tasks, network)
    fitted = fit(joint, joint.network.state_dict(), CONFIG)
    records = [usual_record(task[2], 0.5, (), {}) for task in tasks]
    packed = Joint.commit(before, records, fitted.state)
    joint.network.load_state_dict(fitted.state)
    for number, task in enumerate(tasks):
        assert states_equal(
            task_state_dict(packed, task[2].name), joint.network[number].state_dict()
        )
    first, second = (packed.private[task[2].name] for task in tasks)
    norms = [name for name in first if "running_mean" in name and name in second]
    assert norms
    assert not all(torch.equal(first[name], second[name]) for name in norms)


def test_joint_training_that_was_killed_goes_on_and_keeps_what_is_shared_once(
    tmp_path, monkeypatch
):
    path = tmp_path / "joint.checkpoint"
    whole, _ = joint_of((A, B))
    expected = fit(whole, whole.network.state_dict(), CONFIG)
    killed, before = joint_of((A, B))
    real = Checkpoint.write

    def dies(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            fit(killed, killed.network.state_dict(), CONFIG, None, Checkpoint(path, ""))
    payload = path.read_bytes()[32:]  # behind its digest
    state = torch.load(io.BytesIO(payload), weights_only=True)["network"]
    for name in before.shared:
        tied = [value for key, value in state.items() if key.endswith(f".{name}")]
        assert len(tied) == 2
        assert len({value.untyped_storage().data_ptr() for value in tied}) == 1
    resumed, _ = joint_of((A, B))
    assert states_equal(
        fit(resumed, resumed.network.state_dict(), CONFIG, None, Checkpoint(path, "")).state,
        expected.state,
    )


def test_joint_training_of_one_task_is_plain_training():
    joint, before = joint_of((A,))
    fitted = fit(joint, joint.network.state_dict(), CONFIG)
    plain = learner(A)
    assert joint.steps() == plain.steps()
    packed = Joint.commit(before, [usual_record(A[2], fitted.score, (), {})], fitted.state)
    # the batches come in another order: their seed names the task
    assert set(task_state_dict(packed, "a")) == set(plain.network.state_dict())


def test_joint_training_sees_every_batch_of_every_task_once_an_epoch():
    joint, _ = joint_of((A, B))
    assert len(list(joint.losses(0, 0))) == joint.steps() == 8
    assert len(joint.validate()) == 2


def test_joint_training_learns_both_tasks():
    """Of images whose brightness is their class."""
    tasks = []
    for name, flip in (("bright", False), ("dark", True)):
        train, _, header = tiny_task(name, classes=2, samples=32)
        labels = torch.arange(32) % 2
        images = (train.images // 4 + (170 * (labels ^ flip))[:, None, None, None]).to(torch.uint8)
        split = replace(train, images=images, labels=labels)
        tasks.append((split, split, header))
    joint, _ = joint_of(tasks)
    fitted = fit(joint, joint.network.state_dict(), fit_config(8, 0.01, 0))
    assert fitted.score == 1.0


def test_an_individual_network_is_a_plain_training():
    packed, fitted = finetuned(unlearned(), A)
    plain = learner(A)
    alone = fit(plain, plain.network.state_dict(), CONFIG)
    assert states_equal(task_state_dict(packed, "a"), fitted.state)
    assert states_equal(fitted.state, alone.state)


@pytest.mark.parametrize("second", [B, MASKS])
def test_frozen_features_stay_as_they_are_to_the_bit(second):
    network = network_of(second)
    frozen = Frozen(type="frozen")
    packed, _, _ = learned(frozen, unlearned(network), A, network)
    after, fitted, start = learned(frozen, packed, second, network)
    moved = {name for name, value in fitted.state.items() if not torch.equal(value, start[name])}
    assert any(name.startswith("head.") for name in moved)
    assert not any(name.startswith("encoder.") for name in moved)
    assert (network is UNET) == any(name.startswith("decoder.") for name in moved)
    assert after.record("a").digest == digest(task_state_dict(after, "a"))


# --------------------------------------------------------------------------------------------------
# what every method has in common


METHODS = {name: method(name) for name in kinds(METHODS)}


def settings_of(name, **packing):
    return {"type": name} | ({"ratio": 0.5} | packing if name == "packing" else {})


@pytest.mark.parametrize("name", METHODS)
def test_what_a_training_depends_on_comes_back_as_it_was(name):
    """A step gets it as JSON, and knows of the method no more than that."""
    rule = METHODS[name].model_validate(settings_of(name)).training_rule()
    read = TypeAdapter(RuleOfMethod).validate_json(rule.model_dump_json())
    assert (type(read), read) == (type(rule), rule)


@pytest.mark.parametrize("name", ["packing", "finetuning", "frozen"])
def test_a_first_task_is_learned_plainly_whatever_the_method(name):
    """So that methods can share its training."""
    plain = learner(A)
    expected = fit(plain, start_of(plain, unlearned()), CONFIG)
    own = METHODS[name].model_validate(settings_of(name, criterion="magnitude"))
    assert own.shared_first(SMALL) == DENSE
    rule = own.training_rule()
    assert rule.free_from(1) == "pretrained"
    which, before = learner(A), unlearned()
    start = rule.begin([which], start_of(which, before), Before(before, {}, 0))
    found = fit(start.learner, start.state, CONFIG, start.masks)
    assert states_equal(found.state, expected.state)


@pytest.mark.parametrize("changed", [{}, {"reuse": "all"}, {"free_weights": "zero", "ratio": 0.1}])
def test_a_first_task_whose_scores_are_learned_is_learned_as_all_such(changed):
    own = Packing(**{"ratio": 0.5} | changed)
    assert own.shared_first(SMALL) == LEARNED
    found = []
    for rule in (SHARED_FIRST[LEARNED], own.training_rule()):
        which, before = learner(A), unlearned()
        assert rule.free_from(1) == "pretrained"
        start = rule.begin([which], start_of(which, before), Before(before, {}, 0))
        found.append(fit(start.learner, start.state, CONFIG, start.masks).state)
    assert states_equal(*found)


def test_packing_trains_what_is_free_and_leaves_the_rest_to_the_bit():
    rule = Packing(ratio=0.5, criterion="magnitude", free_weights="zero").training_rule()
    assert [rule.free_from(position) for position in (1, 2)] == ["pretrained", "zero"]
    before = unlearned()
    which = learner(A)
    first = fit(which, start_of(which, before), CONFIG)
    generator = torch.Generator().manual_seed(0)
    keep = {
        name: torch.rand(value.shape, generator=generator) < 0.5
        for name, value in before.shared.items()
    }
    state = first.state | {name: first.state[name] * mask for name, mask in keep.items()}
    packed = commit(before, usual_record(A[2], first.score, (), {}), state, keep)
    own = learner(B)
    start = rule.begin([own], start_of(own, packed), Before(packed, {}, 0))
    after = fit(start.learner, start.state, CONFIG, start.masks).state
    for name, owned in keep.items():
        assert torch.equal(after[name][owned], packed.shared[name][owned])
        assert not torch.equal(after[name][~owned], start.state[name][~owned])


def test_fine_tuning_overwrites_and_says_so():
    before, _ = finetuned(unlearned(), A)
    after, fitted = finetuned(before, B)
    assert [record.frozen for record in after.tasks] == [False, False]
    assert states_equal(task_state_dict(after, "b"), fitted.state)
    assert digest(task_state_dict(after, "a")) != after.record("a").digest
