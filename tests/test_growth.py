"""Networks that grow: earlier tasks stay equal to the bit, whatever is learned in a wider one."""

import json
import math
from dataclasses import replace
from importlib import import_module

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import acll
from acll.cli.main import main
from acll.config.checks import parse
from acll.files import checkpoint_of, write_json
from acll.networks.build import build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork, at_width, body_kind
from acll.networks.widening import inputs_in_wider
from acll.packing import packed_file
from acll.packing.accounting import bytes_alone, bytes_of_first
from acll.packing.corners import corner_at, embedded, seen_from
from acll.packing.ownership import (
    PackingError,
    commit,
    digest,
    free,
    kind_uses,
    reading_ranks,
    starting_state,
    task_state_dict,
    widened,
)
from acll.packing.task_state_file import load_state, save_state
from acll.plan import plan
from acll.serving.export import export_task
from acll.steps.grow import _missed
from acll.steps.search import search_dense
from acll.training.loop import TrainingError, fit
from conftest import building, learn, outputs, states_equal, tiny_task
from test_hostile import forged, read_all, set_at
from test_steps import LAST, call, jobs_of, made

NETWORKS = {
    "resnet_small": BackboneNetwork(backbone="resnet_small", width=0.25),
    "lenet": BackboneNetwork(backbone="lenet", width=0.5),
    "conv_small": BackboneNetwork(backbone="conv_small", width=0.25),
    "unet": DecoderNetwork(decoder="unet", encoder="resnet_small", width=0.25),
    "unetplusplus": DecoderNetwork(decoder="unetplusplus", encoder="resnet_small", width=0.25),
    "manet": DecoderNetwork(decoder="manet", encoder="resnet_small", width=0.25),
}
SLOW = ("conv_small", "unet", "unetplusplus", "manet")
PROPERTY = settings(max_examples=50, deadline=None)
FACTORS = (1.0, 1.3, 1.5, 2.0)


def wider(packed, before, after):
    """The store of a network, once it has the width of another specification."""
    narrow, wide = (build(spec, body_kind(spec), 2, 0) for spec in (before, after))
    state = wide.state_dict()
    shapes = {name: state[name].shape for name in partition(wide).shared}
    return widened(packed, shapes, inputs_in_wider(narrow, wide, 3))


def learned(spec, factors, kinds=("classification",), ratio=0.6, left_out=0.0):
    """The stores after each of several tasks, before each of which the network grows by a factor,
    with their tasks and what builds their networks. left_out: as of `learn`."""
    stores, tasks, makes, packed = [], [], [], None
    for number, factor in enumerate(factors):
        after = at_width(spec, spec.width * factor) if number else spec
        kind = kinds[number % len(kinds)]
        tasks.append(tiny_task("abcd"[number], kind, size=16, samples=4))
        makes.append(building(after))
        if packed is not None and after != spec:
            packed = wider(packed, spec, after)
        spec = after
        given = {"width": spec.width, "left_out": left_out}
        packed = learn(packed, makes[-1], tasks[-1], ratio, **given)
        stores.append(packed)
    return stores, tasks, makes


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NETWORKS],
)
@settings(max_examples=3, deadline=None)
@given(
    factors=st.lists(st.sampled_from(FACTORS), min_size=2, max_size=2),
    ratio=st.sampled_from([0.0, 0.3, 0.9]),
    swapped=st.booleans(),
    left_out=st.sampled_from([0.0, 0.4]),
)
def test_earlier_tasks_stay_equal_bit_for_bit_however_a_network_grows(
    name, factors, ratio, swapped, left_out, tmp_path_factory
):
    spec = NETWORKS[name]
    kinds = ("classification",)
    if isinstance(spec, DecoderNetwork):
        kinds = ("segmentation", "classification")[:: -1 if swapped else 1]
    stores, tasks, makes = learned(spec, (1.0, *factors), kinds, ratio, left_out)
    path = tmp_path_factory.mktemp("grown") / "network.safetensors"
    for stage, packed in enumerate(stores):
        packed_file.write_packed(path, packed)
        assert bytes_of_first(packed_file.header_of(stores[-1]))[stage] == path.stat().st_size
        opened = packed_file.open_packed(path)
        assert digest(opened.whole().shared) == digest(packed.shared)
        again = opened.whole()
        assert digest(again.owner) == digest(packed.owner)
        assert again.unread.keys() == packed.unread.keys()
        for own in packed.unread:
            assert states_equal(again.unread[own], packed.unread[own])
        for name, rank in reading_ranks(packed, "segmentation").items():
            latest = [one for one in packed.tasks if kind_uses(one.kind, name)][-1:]
            expected = torch.zeros(packed.shared[name].shape, dtype=torch.bool)
            for record in latest:
                corner = packed.corners(record.width)[name]
                state = task_state_dict(packed, record.name)[name]
                expected = corner.filled(expected, state != 0)
            if bool(expected.any()) and not bool(expected.all()):
                # sizes that are tiny, or the largest, may make both of them exactly a half
                assert rank[expected].min() >= 0.5 >= rank[~expected].max()
        for earlier, task in enumerate(tasks[: stage + 1]):
            own = task[2].name
            state = task_state_dict(packed, own)
            assert digest(state) == packed.record(own).digest == digest(opened.state(own))
            first = outputs(stores[earlier], makes[earlier], task)
            assert torch.equal(outputs(packed, makes[earlier], task), first)
            assert states_equal(acll.load(path).network(own).state_dict(), state)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A file of three tasks, of widths 0.25, 0.5 and 0.5, its stores and what they are made of."""
    stores, tasks, makes = learned(NETWORKS["resnet_small"], (1.0, 2.0, 1.0))
    path = tmp_path_factory.mktemp("grown") / "network.safetensors"
    packed_file.write_packed(path, stores[-1])
    return path, stores, tasks, makes


@pytest.mark.parametrize("name", NETWORKS)
def test_a_wider_store_has_what_it_had_and_all_else_is_free(name):
    before = NETWORKS[name]
    kind = body_kind(before)
    packed = learn(None, building(before), tiny_task("a", kind, size=16, samples=4), width=0.25)
    after = wider(packed, before, at_width(before, 1.0))
    (narrower,) = after.narrower
    for name, own in packed.shared.items():
        corner = narrower.corners[name]
        assert after.shared[name].shape == after.owner[name].shape
        assert torch.equal(corner.of(after.shared[name]), own)
        assert torch.equal(corner.of(after.owner[name]), packed.owner[name])
        assert int(after.shared[name].count_nonzero()) == int(own.count_nonzero())
        assert int((after.owner[name] > 0).sum()) == int((packed.owner[name] > 0).sum())


def test_a_wider_task_starts_from_the_private_state_before_it_and_fresh_values_beside_it(grown):
    _, stores, _, _ = grown
    before = NETWORKS["resnet_small"]
    spec = at_width(before, 1.0)
    packed = wider(stores[-1], at_width(before, 0.5), spec)
    fresh = build(spec, "classification", 3, 5).state_dict()
    start = starting_state(packed, "classification", fresh)
    private = stores[-1].private["c"]
    for name, value in start.items():
        if name in packed.shared:
            unowned = packed.owner[name] == 0
            assert torch.equal(value, torch.where(unowned, fresh[name], packed.shared[name]))
        elif name.startswith("head."):
            assert torch.equal(value, fresh[name])
        else:
            sides = tuple(slice(side) for side in private[name].shape)
            assert torch.equal(value[sides], private[name])
            rest = torch.ones_like(value, dtype=torch.bool)
            rest[sides] = False
            assert torch.equal(value[rest], fresh[name][rest])


def test_where_maps_are_put_together_old_weights_read_the_maps_that_they_did():
    narrow, wide = (build(at_width(NETWORKS["unet"], width), "segmentation", 2, 0)
                    for width in (0.25, 0.5))  # fmt: skip
    inputs = inputs_in_wider(narrow, wide, 3)
    # the upsampled map has 32 channels, in the wider network 64; that of the encoder 16, and 32
    assert inputs["decoder.blocks.0.conv1.0.weight"] == [*range(32), *range(64, 80)]
    assert inputs["encoder.stages.3.first.0.weight"] == [*range(16)]


def test_images_and_flattened_maps_come_first():
    narrow, wide = (build(at_width(NETWORKS["lenet"], width), "classification", 2, 0)
                    for width in (0.5, 1.0))  # fmt: skip
    inputs = inputs_in_wider(narrow, wide, 3)
    state = narrow.state_dict()
    for name in partition(narrow).shared:
        assert inputs[name] == [*range(state[name].shape[1])]


@pytest.mark.parametrize("name", ["resnet_small", "lenet", "conv_small"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_network_of_any_width_takes_images_of_any_channels(name, channels):
    """The first layer of a narrow one may give 3 channels, which are no images."""
    for width in (0.25, 0.5, 0.5625, 1.0):
        spec = BackboneNetwork(backbone=name, width=width, channels=channels)
        network = build(spec, "classification", 2, 0).eval()
        assert network(torch.zeros(1, channels, 32, 32)).shape == (1, 2)


shapes = st.lists(st.integers(1, 4), min_size=2, max_size=4)


@PROPERTY
@given(shapes, st.data())
def test_a_corner_of_a_corner_is_a_corner(shape, data):
    def drawn(around):
        """A corner of a tensor of a shape."""
        sides = [data.draw(st.integers(1, side)) for side in around]
        inputs = data.draw(st.permutations(range(around[1])))[: sides[1]]
        return corner_at(sides, sorted(inputs))

    outer = drawn(shape)
    inner = drawn(outer.shape)
    value = torch.arange(math.prod(shape)).reshape(shape)
    whole = embedded(inner, outer)
    assert torch.equal(whole.of(value), inner.of(outer.of(value)))
    assert seen_from(whole, outer) == inner
    own = -torch.ones(inner.shape, dtype=torch.long)
    filled = whole.filled(value, own)
    assert torch.equal(whole.of(filled), own)
    assert int((filled != value).sum()) == own.numel()


def test_a_network_does_not_become_narrower_and_no_copy_of_another_width_is_committed(grown):
    _, stores, _, makes = grown
    with pytest.raises(PackingError, match="can only become wider"):
        wider(stores[-1], at_width(NETWORKS["resnet_small"], 0.5), NETWORKS["resnet_small"])
    narrow = makes[0]("classification", 3, 0).state_dict()
    keep = {name: mask.clone().zero_() for name, mask in free(stores[-1], "classification").items()}
    with pytest.raises(PackingError, match="does not have the shape that the store has"):
        commit(stores[-1], replace(stores[-1].tasks[0], name="d"), narrow, keep)


def test_a_task_alone_has_its_own_width_and_no_other(grown, tmp_path):
    path, stores, _, _ = grown
    opened = packed_file.open_packed(path)
    for name in "abc":
        export_task(opened, name, tmp_path / f"{name}.safetensors", "float32", None)
        own = packed_file.open_packed(tmp_path / f"{name}.safetensors")
        assert digest(own.state(name)) == stores[-1].record(name).digest
        assert own.header.narrower == []
        assert not own.without_weights().grew(name)
        assert own.header.tasks[0].width == stores[-1].record(name).width
    a, b = ((tmp_path / f"{name}.safetensors").stat().st_size for name in "ab")
    assert a < b
    whole = bytes_alone(packed_file.header_of(stores[-1]), "a")
    assert whole == bytes_alone(packed_file.header_of(stores[0]), "a")


@pytest.mark.parametrize("suffix", [pytest.param(".onnx", marks=pytest.mark.slow), ".pt2"])
def test_a_narrower_task_is_exported_as_it_was(grown, tmp_path, suffix):
    path, _, _, _ = grown
    exported = export_task(
        packed_file.open_packed(path), "a", tmp_path / f"a{suffix}", "float32", None
    )
    assert exported.difference < 1e-3


def test_a_live_network_is_switched_between_widths(grown):
    path, stores, _, _ = grown
    loaded = acll.load(path)
    network = loaded.network("a")
    for name in ("b", "c", "a", "b"):
        loaded.switch(network, name)
        assert states_equal(network.state_dict(), task_state_dict(stores[-1], name))
        with torch.no_grad():
            images = torch.randn(2, 3, 16, 16)
            assert torch.equal(network(images), loaded.network(name)(images))
    assert [task.width for task in loaded.tasks] == [0.25, 0.5, 0.5]


# --------------------------------------------------------------------------------------------------
# the step


NETWORK = "nodes/small/m/seed0/a/b/network.safetensors"
GENERATED = {"source": "generated", "kind": "classification", "image_size": 8, "samples": 60}


# of a search, and of how many tasks. A cap of a tenth, which alone is tried.
MISSED = {"lower": 0.9}, 20
# a cap of a quarter, below which shares are tried
TRIED = {}, 5
# a tolerance that excuses everything, a cap of a half, and room for a trial of less
HELD = {"min_tolerance": 0.9, "max_tolerance": 0.95, "budget": 1.0}, 2


def growing(goal, **changes):
    """Two tasks that a narrow network learns by packing. goal: is missed, or held. changes: of the
    method."""
    search, expected = goal
    ratio = {"search": "bayes", "budget": 0.1, "prefer": "size"} | search
    method = {"ratio": ratio, "expected_tasks": expected}
    return parse(
        {
            "name": "tiny",
            "tasks": {
                "a": GENERATED | {"classes": 3, "difficulty": 0.2},
                "b": GENERATED | {"classes": 2, "difficulty": 0.5},
            },
            "networks": {"small": {"backbone": "resnet_small", "width": 0.25}},
            "sequences": {"one": {"network": "small", "tasks": ["a", "b"]}},
            "methods": {"m": method | changes},
            "training": {"epochs": 2, "retrain_epochs": 1, "batch_size": 16},
        }
    )


@pytest.fixture
def largest(monkeypatch):
    """Networks that are no wider than 0.5."""
    monkeypatch.setattr("acll.steps.grow.LARGEST_WIDTH", 0.5)


def test_a_task_that_misses_its_goal_has_a_wider_network_and_the_ones_before_it_stay(
    tmp_path, capsys, monkeypatch
):
    def miss(params, dense, *others):
        """The second task misses its goal at the width 0.25."""
        found = search_dense(params, dense, *others)
        narrow = dense.about["task"]["name"] == "b" and dense.about["width"] == 0.25
        return replace(found, capped=narrow)

    monkeypatch.setattr("acll.steps.grow.search_dense", miss)
    monkeypatch.setattr("acll.steps.grow._capped", lambda choice: "/b/" in str(choice))
    done = made(growing(HELD, grow=1.5), tmp_path, LAST - {"tables"})
    said = capsys.readouterr().out
    assert said.count("misses its goal within its cap at width 0.25; it grows to 0.375") == 1
    assert "largest width" not in said
    first, last = (
        packed_file.read_packed(done[f"nodes/small/m/seed0/{prefix}/network.safetensors"])
        for prefix in ("a", "a/b")
    )
    assert [record.width for record in last.tasks] == [0.25, 0.375]
    assert states_equal(task_state_dict(last, "a"), task_state_dict(first, "a"))
    scores = pd.read_csv(tmp_path / "tables/scores.csv")
    assert scores["width"].tolist() == [0.25, 0.25, 0.375]
    assert scores["bit_exact"].all()
    assert (scores["forgetting"] == 0).all()
    assert scores["grew"].tolist() == [False, False, True]
    told = "one, m: the network grew to width 0.375 for b: the goal was missed"
    assert told in (tmp_path / "tables/tables.txt").read_text()
    trials = pd.read_csv(tmp_path / "tables/trials.csv")
    assert sorted(trials["prefix"].unique()) == ["a", "a+b"]
    # what is handed over is what pruning and retraining would make
    network = (tmp_path / NETWORK).read_bytes()
    held = done["nodes/small/m/seed0/a/b/grown_held.safetensors"]
    assert load_state(held)[0]
    save_state(held, {}, {}, {})
    jobs = jobs_of(growing(HELD, grow=1.5))
    for rule in ("prune", "retrain"):
        call(jobs[f"{rule} small/m/seed0/a/b"], tmp_path)
    assert (tmp_path / NETWORK).read_bytes() == network


def test_a_network_grows_to_its_largest_width_and_says_so_where_that_is_too_narrow(
    tmp_path, capsys, monkeypatch, largest
):
    monkeypatch.setattr("acll.search.run.holds", lambda score, threshold: False)
    made(growing(MISSED, grow=1.5), tmp_path)
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "width" in line] == [
        "a: misses its goal within its cap at width 0.25; it grows to 0.375",
        "a: misses its goal within its cap at width 0.375; it grows to 0.5",
        "warning: a: misses its goal at the largest width, 0.5, too",
        "warning: b: misses its goal at the largest width, 0.5, too",
    ]
    packed = packed_file.read_packed(tmp_path / NETWORK)
    assert [record.width for record in packed.tasks] == [0.5, 0.5]
    assert packed.narrower == ()
    assert packed.record("a").owned <= packed.record("a").free_before / 10


@pytest.mark.slow
@pytest.mark.parametrize("last", [0.25, 0.375])
def test_a_task_stays_at_the_width_whose_wider_one_diverges(tmp_path, capsys, monkeypatch, last):
    tried = []

    def diverge(learner, state, config, *others):
        tried.append(learner.network.built_from.width)
        if tried[-1] > last:
            raise TrainingError("a", "the loss is", 1)
        return fit(learner, state, config, *others)

    monkeypatch.setattr("acll.steps.grow.fit", diverge)
    monkeypatch.setattr("acll.search.run.holds", lambda score, threshold: False)
    made(growing(MISSED, grow=1.5), tmp_path)
    said = capsys.readouterr().out
    assert f"\na stays at width {last:g}, where it misses its goal\n" in said
    packed = packed_file.read_packed(tmp_path / NETWORK)
    assert [record.width for record in packed.tasks] == [last, last]
    assert tried[: 2 if last > 0.25 else 1] == ([0.375, 0.5625] if last > 0.25 else [0.375])
    # one that was killed at its very end: outputs are removed, notes are not
    grow = jobs_of(growing(MISSED, grow=1.5))["grow small/m/seed0/a"]
    before = [(tmp_path / path).read_bytes() for path in grow.all_outputs]
    noted = {"key": "", "missed": [0.25, 0.375][: 1 + (last > 0.25)], "diverged": "it diverged"}
    monkeypatch.setattr("acll.steps.grow.content_key", lambda *content: "")
    for path in grow.all_outputs:
        (tmp_path / path).unlink()
        if path.endswith("grown_trials.csv"):
            write_json(checkpoint_of(tmp_path / path), noted)
    tried.clear()
    call(grow, tmp_path)
    assert tried == [0.375][: int(last > 0.25)]
    assert [(tmp_path / path).read_bytes() for path in grow.all_outputs] == before


def test_a_network_that_need_not_grow_is_that_of_a_method_which_never_does(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    made(growing(HELD), one, LAST | {"evaluate"})
    done = made(growing(HELD, grow=2.0), two, LAST | {"evaluate"})
    assert (one / NETWORK).read_bytes() == (two / NETWORK).read_bytes()
    for name, path in done.items():
        if "grown" in name:
            assert path.stat().st_size < 4096
    for kind in ("choice.json", "trials.csv"):
        own = [name for name in done if name.endswith(f"/{kind}")]
        for name in own:
            assert done[name].read_bytes() == done[name.replace(kind, f"grown_{kind}")].read_bytes()


def test_without_a_free_weight_a_task_misses_its_goal():
    assert not _missed(False, {"x": torch.tensor([False, True])})
    assert _missed(True, {"x": torch.tensor([False, True])})
    assert _missed(False, {"x": torch.tensor([False, False])})


BEFORE_A = ("prepare a", "train small/learned/seed0/a", "search small/m/seed0/a")
AFTER_A = tuple(f"{rule} small/m/seed0/a" for rule in ("grow", "prune", "retrain"))
BEFORE_B = ("prepare b", "train small/m/seed0/a/b", "search small/m/seed0/a/b")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "every", "before", "prefix"),
    [
        ("training.checkpoint.Checkpoint.write", 3, BEFORE_A, "a"),
        # the second task chooses what it reads of the first
        ("training.checkpoint.Checkpoint.write", 3, (*BEFORE_A, *AFTER_A, *BEFORE_B), "a/b"),
        ("search.trials.TrialLog._write", 3, BEFORE_A, "a"),
        ("steps.grow._Widths.write", 1, BEFORE_A, "a"),
    ],
)
def test_a_growth_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, place, every, before, prefix
):
    monkeypatch.setattr("acll.search.run.holds", lambda *given: False)
    jobs = {job.title: job for job in plan(growing(TRIED, grow=1.5))}
    for title in before:
        for folder in ("one", "two"):
            # room for the second task to grow once the first has
            widest = 0.375 if title.startswith("grow") else 0.5
            monkeypatch.setattr("acll.steps.grow.LARGEST_WIDTH", widest)
            call(jobs[title], tmp_path / folder)
    monkeypatch.setattr("acll.steps.grow.LARGEST_WIDTH", 0.5)
    grow = jobs[f"grow small/m/seed0/{prefix}"]
    call(grow, tmp_path / "one")
    module, name, method = place.rsplit(".", 2)
    owner = getattr(import_module(f"acll.{module}"), name)
    write, written = getattr(owner, method), []

    def killed(self, *given):
        write(self, *given)
        written.append(given)
        if len(written) % every == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(owner, method, killed)
    kills = 0
    while kills < 20:
        try:
            call(grow, tmp_path / "two")
        except KeyboardInterrupt:
            kills += 1
            for path in grow.all_outputs:  # as the workflow does
                (tmp_path / "two" / path).unlink(missing_ok=True)
        else:
            break
    assert 0 < kills < 20
    for path in grow.all_outputs:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


# --------------------------------------------------------------------------------------------------
# files that lie


def first_shape(change):
    """A change of the shapes at the first of the smaller widths."""
    return lambda tensors, header: change(header["narrower"][0]["shapes"])


def runs(given):
    """Other input channels of the second layer, which has 4 of 8."""
    return lambda tensors, header: header["narrower"][0]["runs"].update(
        {header["layers"][1]["name"]: given}
    )


LIES = {
    "a width that no network has": (set_at("tasks", 0, "width", value=0.0), "that no network has"),
    "a width that is no number": (set_at("tasks", 0, "width", value=float("nan")), "that no netw"),
    "a network of no width": (set_at("network", "width", value=[]), "that no network has"),
    "a network of width 0": (set_at("network", "width", value=0), "that no network has"),
    "a width as text": (set_at("tasks", 0, "width", value="wide"), r"tasks\.0\.width"),
    "a narrower task behind": (set_at("tasks", 2, "width", value=0.25), "narrower network than"),
    "a width of no task": (set_at("narrower", 0, "width", value=0.3), "not those of its tasks"),
    "no smaller widths": (set_at("narrower", value=[]), "not those of its tasks"),
    "a smaller width twice": (
        lambda tensors, header: header["narrower"].append(header["narrower"][0]),
        "not those of its tasks",
    ),
    "widths of other tasks": (
        lambda tensors, header: [one.update(width=0.5) for one in header["tasks"]],
        "not those of its tasks",
    ),
    "widths that the network does not have": (
        lambda tensors, header: [
            one.update(width=2 * one["width"]) for one in (*header["tasks"], *header["narrower"])
        ],
        "does not fit what it says it is built from",
    ),
    "larger corners": (
        first_shape(lambda shapes: shapes[0].__setitem__(0, 99)),
        "larger than the one around it",
    ),
    "flat corners": (first_shape(lambda shapes: shapes[0].pop()), "larger than the one around it"),
    "corners of fewer layers": (first_shape(lambda shapes: shapes.pop()), "of other layers"),
    "small corners": (
        first_shape(lambda shapes: shapes[0].__setitem__(0, 1)),
        "width 0.25 own more weights than there are|that its network does not have",
    ),
    "another corner": (
        first_shape(lambda shapes: shapes[-1].__setitem__(slice(2), [64, 16])),
        "that its network does not have|does not fit what it says",
    ),
    "runs of no layer": (set_at("narrower", 0, "runs", value={"x": [[0, 1]]}), "of other layers"),
    "runs that overlap": (runs([[0, 2], [1, 2]]), "that cannot be"),
    "runs of more channels": (runs([[0, 5]]), "that cannot be"),
    "runs of ten million channels": (runs([[0, 3], [10**7, 1]]), "more runs of input channels"),
    "runs beyond the network": (runs([[0, 3], [20, 1]]), "reads what the one around it does not"),
    "runs that begin before the network": (runs([[-1, 4]]), "runs"),
    "other runs": (runs([[0, 3], [7, 1]]), "that its network does not have"),
    "a network that has no width": (
        set_at("network", value={"hidden": [6], "image_size": 16, "channels": 3}),
        "cannot be built with the width of a, 0.25",
    ),
    "a network of one width": (
        set_at("network", value={"backbone": "resnet18"}),
        "cannot be built with the width of a, 0.25",
    ),
}


@pytest.mark.parametrize(("change", "message"), LIES.values(), ids=LIES.keys())
def test_a_file_that_lies_about_widths_is_refused_with_what_is_wrong(
    grown, tmp_path, change, message
):
    path = forged(grown[0], tmp_path, change)
    with pytest.raises(PackingError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_outside_of_the_network_of_their_task_are_found(grown, tmp_path):
    _, stores, _, _ = grown
    packed = stores[-1]
    name = next(iter(packed.shared))
    owner, shared = packed.owner[name].clone(), packed.shared[name].clone()
    owner[-1, -1, -1, -1], shared[-1, -1, -1, -1] = 1, 1.0  # the first task is narrower
    lying = replace(
        packed, owner=packed.owner | {name: owner}, shared=packed.shared | {name: shared}
    )
    path = tmp_path / "network.safetensors"
    packed_file.write_packed(path, lying)
    opened = packed_file.open_packed(path)
    for read in (lambda: opened.state("a"), opened.whole):
        with pytest.raises(PackingError, match="owns weights that its network does not have"):
            read()


def test_what_has_grown_is_told(grown, capsys):
    main(["inspect", str(grown[0])])
    assert "\nit grew to width 0.5 for b\n" in capsys.readouterr().out
    main(["inspect", str(grown[0]), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [task["width"] for task in found["tasks"]] == [0.25, 0.5, 0.5]
    assert [task["grew"] for task in found["tasks"]] == [False, True, False]
