"""Packing: ownership, prune, commit, the packed file. Most of it by property."""

import json
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from acll.networks.build import TaskNetwork
from acll.networks.build import build as build_network
from acll.networks.spec import DecoderNetwork
from acll.packing import packed_file, task_state_file, tensor_file
from acll.packing.accounting import bytes_alone, bytes_of_first
from acll.packing.bits import (
    digits_size,
    map_size,
    pack_digits,
    pack_map,
    pack_set,
    set_size,
    unpack_digits,
    unpack_map,
    unpack_set,
)
from acll.packing.floats import CodedFloats, coded_size, encode, encoded_size
from acll.packing.ownership import (
    PackingError,
    TaskRecord,
    commit,
    commit_finetuned,
    digest,
    empty,
    free,
    raw_bytes,
    reading_ranks,
    starting_state,
    task_state_dict,
)
from acll.packing.prune import keep_masks, kept_count
from conftest import learn, outputs, states_equal, tiny_packed, tiny_task

PROPERTY = settings(max_examples=25, deadline=None)


def networks(widths, with_bias=True, seed=0):
    """A factory of small networks: convolutions (plain, depthwise, transposed), a linear layer,
    normalisations."""

    def build(kind, classes, drawn):
        with torch.random.fork_rng():
            torch.manual_seed(seed * 1000 + drawn)
            layers, before = [], 3
            for index, width in enumerate(widths):
                layers += [
                    nn.Conv2d(before, width, 3, stride=2, padding=1, bias=with_bias),
                    nn.BatchNorm2d(width),
                ]
                if index % 2:
                    layers += [
                        nn.Conv2d(width, width, 3, padding=1, groups=width),
                        nn.GroupNorm(1, width),
                    ]
                layers.append(nn.ReLU())
                before = width
            layers += [
                nn.ConvTranspose2d(before, before, 2, 2),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            ]
            encoder = nn.Sequential(*layers, nn.Linear(before, 5), nn.LayerNorm(5))
            return TaskNetwork(encoder, None, nn.Linear(5, classes))

    return build


@given(
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    ratios=st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.999]), min_size=1, max_size=4),
    scope=st.sampled_from(["layer", "global"]),
    optimizer=st.sampled_from(["sgd", "adamw"]),
    seed=st.integers(0, 100),
)
@PROPERTY
def test_earlier_tasks_stay_equal_bit_for_bit(widths, ratios, scope, optimizer, seed):
    build, packed, before = networks(widths, seed=seed), None, []
    for index, ratio in enumerate(ratios):
        task = tiny_task(f"task{index}", seed=seed)
        packed = learn(packed, build, task, ratio, scope, optimizer=optimizer, weight_decay=0.3)
        before.append((task, task_state_dict(packed, f"task{index}"), outputs(packed, build, task)))
        for earlier, state, result in before:
            assert states_equal(task_state_dict(packed, earlier[2].name), state)
            assert torch.equal(outputs(packed, build, earlier), result)
    assert all(
        record.digest == digest(task_state_dict(packed, record.name)) for record in packed.tasks
    )


@given(
    ratios=st.lists(st.floats(0, 0.999), min_size=1, max_size=4),
    scope=st.sampled_from(["layer", "global"]),
)
@PROPERTY
def test_every_weight_has_one_owner_and_counts_are_exact(ratios, scope):
    build, packed = networks([4, 3]), None
    for index, ratio in enumerate(ratios):
        unowned = (
            sum(int(mask.sum()) for mask in free(packed, "classification").values())
            if packed
            else None
        )
        packed = learn(packed, build, tiny_task(f"task{index}"), ratio, scope)
        record = packed.tasks[-1]
        assert unowned is None or record.free_before == unowned
        assert record.owned <= (1 - ratio) * record.free_before * (1 + 1e-6)
        assert record.owned == sum(
            int((owner == index + 1).sum()) for owner in packed.owner.values()
        )
        if scope == "global":
            assert record.owned == kept_count(record.free_before, ratio)
    for name, owner in packed.owner.items():
        assert bool((packed.shared[name][owner == 0] == 0).all())
        assert int(owner.max()) <= len(ratios)


@given(
    values=st.lists(st.sampled_from([0.0, -1.0, 1.0, 2.0]), min_size=1, max_size=40),
    ratio=st.floats(0, 0.9999),
    data=st.data(),
)
@PROPERTY
def test_prune_keeps_the_largest_and_exactly_as_many_whatever_the_ties(values, ratio, data):
    free_mask = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    )
    weights = torch.tensor(values)
    (mask,) = keep_masks({"a": weights}, {"a": free_mask}, ratio, "layer").values()
    assert int(mask.sum()) == kept_count(int(free_mask.sum()), ratio)
    assert not bool((mask & ~free_mask).any())
    kept, dropped = weights[mask].abs(), weights[free_mask & ~mask].abs()
    if len(kept) and len(dropped):
        assert float(kept.min()) >= float(dropped.max())
    again = keep_masks({"a": weights.clone()}, {"a": free_mask}, ratio, "layer")["a"]
    assert torch.equal(mask, again)


class Chained:
    """Of layers, each of which reads the one before: which weights read nothing."""

    layers = MappingProxyType({})

    def __init__(self, names):
        self.names = names

    def idle(self, silent):
        return {
            after: silent[before].expand(len(silent[after]), -1)
            for before, after in pairwise(self.names)
        }


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3
    ),
    ratio=st.floats(0, 0.999),
    seed=st.integers(0, 99),
)
@PROPERTY
def test_by_channel_whole_channels_are_kept_the_largest_first_and_no_more_than_there_is_room_for(
    shapes, ratio, seed
):
    generator = torch.Generator().manual_seed(seed)
    weights = {
        str(number): torch.rand(shape, generator=generator) for number, shape in enumerate(shapes)
    }
    unowned = {
        name: torch.rand(value.shape, generator=generator) < 0.7 for name, value in weights.items()
    }
    masks = keep_masks(weights, unowned, ratio, "channel", channels=Chained(()))
    # whether it is the first of its tensor, how large it is, how many weights it has
    kept, released = (
        [],
        [],
    )
    for name, mask in masks.items():
        assert not bool((mask & ~unowned[name]).any())
        means = torch.where(unowned[name], weights[name], 0.0).flatten(1).sum(dim=1)
        means /= (
            unowned[name].flatten(1).sum(dim=1).clamp(min=1) * weights[name][unowned[name]].mean()
        )
        for place, (own, there) in enumerate(zip(mask, unowned[name])):
            if bool(there.any()):
                assert bool(own.any()) == bool((own == there).all())  # all of a channel, or nothing
                one = (place == int(means.argmax()), float(means[place]), int(there.sum()))
                (kept if bool(own.any()) else released).append(one)
    total = sum(int(mask.sum()) for mask in unowned.values())
    room = kept_count(total, ratio) - sum(count for _, _, count in kept)
    assert room >= 0
    if kept and released:
        (first, least, _), (also_first, most, _) = min(kept), max(released)
        assert first >= also_first
        assert first or least >= most - 1e-5
    if released and not max(released)[0]:
        assert (
            room < max(released)[2]
            or len([one for one in released if one[1] > max(released)[1] - 1e-5]) > 1
        )


@given(
    width=st.integers(1, 6), ratio=st.floats(0, 0.999), seed=st.integers(0, 99), owned=st.booleans()
)
@PROPERTY
def test_by_channel_no_weight_is_kept_that_reads_nothing_and_as_many_others_as_have_room(
    width, ratio, seed, owned
):
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.rand(width, width, 2, generator=generator) + 0.1 for name in "abc"}
    unowned = {name: torch.ones_like(value, dtype=torch.bool) for name, value in weights.items()}
    if owned:
        unowned["a"][0] = False  # an earlier task's
    channels = Chained("abc")
    masks = keep_masks(weights, unowned, ratio, "channel", channels=channels)
    silent = {name: ~(mask | ~unowned[name]).flatten(1).any(dim=1) for name, mask in masks.items()}
    for name, idle in channels.idle(silent).items():
        assert not bool((masks[name] & idle[:, :, None]).any())
    count = sum(int(mask.sum()) for mask in masks.values())
    assert count <= kept_count(sum(int(mask.sum()) for mask in unowned.values()), ratio)
    more = keep_masks(weights, unowned, ratio / 2, "channel", channels=channels)
    assert not any(bool((mask & ~more[name]).any()) for name, mask in masks.items())
    everything = keep_masks(weights, unowned, 0.0, "channel", channels=channels)
    assert all(torch.equal(mask, unowned[name]) for name, mask in everything.items())


def test_ratio_zero_keeps_all_and_a_ratio_of_one_is_refused():
    weights, mask = {"a": torch.randn(10)}, {"a": torch.ones(10, dtype=torch.bool)}
    assert bool(keep_masks(weights, mask, 0.0, "global")["a"].all())
    for ratio in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="release ratio"):
            keep_masks(weights, mask, ratio, "layer")


def test_weights_that_are_not_finite_are_refused():
    weights = {"a": torch.tensor([1.0, float("nan")])}
    with pytest.raises(PackingError, match="a: weights that are not finite"):
        keep_masks(weights, {"a": torch.ones(2, dtype=torch.bool)}, 0.5, "layer")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", ["shared", "private"])
def test_no_network_is_written_whose_values_are_not_finite(two_tasks, tmp_path, part, value):
    (*_, packed), path = two_tasks, tmp_path / "network.safetensors"
    state = packed.shared if part == "shared" else packed.private["a"]
    name = next(name for name, one in state.items() if one.is_floating_point() and one.any())
    spoilt = {**state, name: torch.where(state[name] != 0, value, state[name])}
    changed = spoilt if part == "shared" else {**packed.private, "a": spoilt}
    with pytest.raises(PackingError, match=r"network.safetensors: not written: values of .* not"):
        packed_file.write_packed(path, replace(packed, **{part: changed}))
    with pytest.raises(PackingError, match="not written"):
        task_state_file.save_state(path, spoilt, {})
    assert list(tmp_path.iterdir()) == []


@given(data=st.data(), size=st.integers(1, 5000))
@PROPERTY
def test_sets_of_positions_round_trip_in_the_bytes_that_their_number_says(data, size):
    count = data.draw(st.integers(0, size))
    seed = data.draw(st.integers(0, 1000))
    positions = np.sort(np.random.default_rng(seed).permutation(size)[:count])
    code = pack_set(positions, size)
    assert len(code) == set_size(count, size) <= (size + 7) // 8
    assert np.array_equal(unpack_set(code, count, size), positions)


@given(
    base=st.integers(2, 256),
    values=st.lists(st.integers(0, 255), max_size=100),
    repeats=st.sampled_from([1, 3, 1500]),
)
@PROPERTY
def test_digits_round_trip_in_the_bytes_that_their_number_says(base, values, repeats):
    array = (
        np.array(values * repeats, np.uint8) % base if base < 256 else np.array(values, np.uint8)
    )
    code = pack_digits(array, base)
    assert len(code) == digits_size(len(array), base)
    pieces = [np.zeros(0, np.uint8), *unpack_digits(code, base, len(array))]
    assert np.array_equal(np.concatenate(pieces), array)


def owner_map(tasks, size, share, unequal, seed):
    """A map in which tasks own this share, equal parts of it or each less than the one before."""
    generator = np.random.default_rng(seed)
    parts = 0.5 ** np.arange(tasks) if unequal else np.ones(tasks)
    owner = generator.choice(tasks, size, p=parts / parts.sum()).astype(np.uint8) + 1
    owner[generator.random(size) >= share] = 0
    return owner, np.bincount(owner, minlength=tasks + 1)[1:].tolist()


def owners_of(code, owned, size, last):
    owner = np.zeros(size, np.uint8)
    for task, positions in unpack_map(code, owned, size, last):
        owner[positions] = task
    return owner


MAPS = {
    "tasks": st.integers(1, 255),
    "size": st.integers(1, 3000),
    "share": st.sampled_from([0.0, 0.01, 0.04, 0.3, 0.6, 0.99, 1.0]),
    "unequal": st.booleans(),
    "seed": st.integers(0, 1000),
}


@given(**MAPS)
@settings(max_examples=200, deadline=None)
def test_any_owner_map_round_trips_in_no_more_bytes_than_packed_bits(
    tasks, size, share, unequal, seed
):
    owner, owned = owner_map(tasks, size, share, unequal, seed)
    code = pack_map(owner, owned)
    assert len(code) == map_size(owned, size) <= (size * tasks.bit_length() + 7) // 8 + 8
    assert np.array_equal(owners_of(code, owned, size, tasks), owner)
    first = (tasks + 1) // 2
    assert np.array_equal(
        owners_of(code, owned, size, first), np.where(owner <= first, owner, 0).astype(np.uint8)
    )


@pytest.mark.parametrize(("tasks", "share"), [(2, 0.5), (5, 0.04), (5, 1.0), (10, 1.0), (10, 0.9)])
def test_large_owner_maps_round_trip_and_come_near_their_entropy(tasks, share):
    owner, owned = owner_map(tasks, (1 << 18) + 77, share, False, 0)
    code = pack_map(owner, owned)
    assert np.array_equal(owners_of(code, owned, len(owner), tasks), owner)
    shares = np.array([len(owner) - sum(owned), *owned]) / len(owner)
    entropy = -sum(part * np.log2(part) for part in shares if part)
    assert 8 * len(code) / len(owner) < 1.1 * entropy


def test_the_bytes_of_owner_maps_are_these():
    assert pack_set(np.array([3, 17, 40]), 64).tolist() == [
        0b10010001,
        0,
        0b11000000,
        0b10000000,
        0,
    ]
    assert pack_digits(np.array([1, 0, 2], np.uint8), 3).tolist() == [19, 0, 0, 0, 0, 0, 0, 0]


@given(**MAPS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_bytes_in_place_of_an_owner_map_give_other_counts_or_another_error(
    tasks, size, share, unequal, seed, data
):
    owner, owned = owner_map(tasks, size, share, unequal, seed)
    code = pack_map(owner, owned)
    kind = data.draw(st.sampled_from(["changed", "random", "cut", "longer"]))
    generator = np.random.default_rng(seed)
    if kind == "changed" and len(code):
        code[generator.integers(len(code))] ^= generator.integers(1, 256, dtype=np.uint8)
    elif kind == "random":
        code = generator.integers(0, 256, len(code), np.uint8)
    else:
        code = code[:-1] if kind == "cut" and len(code) else np.append(code, np.uint8(0))
    try:
        found = owners_of(code, owned, size, tasks)
    except ValueError:
        return
    assert np.bincount(found, minlength=tasks + 1)[1:].tolist() == owned


FLOATS = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False) | st.floats(-1, 1, width=32),
    max_size=60,
)


@given(values=FLOATS, ordinary=st.sampled_from([0, 1, 1000]), seed=st.integers(0, 1000))
@PROPERTY
def test_weights_round_trip_to_the_bit_and_any_part_is_read_alone(values, ordinary, seed):
    generator = np.random.default_rng(seed)
    array = np.concatenate([values, 0.02 * generator.normal(size=ordinary)]).astype(np.float32)
    generator.shuffle(array)
    code = encode(array)
    assert len(code) == encoded_size(array) <= array.nbytes
    opened = CodedFloats.open(code, len(array))
    start, end = sorted(generator.integers(0, len(array) + 1, 2))
    for begin, stop in ((0, len(array)), (start, end)):
        out = np.empty(stop - begin, np.float32)
        opened.read(begin, out)
        assert out.tobytes() == array[begin:stop].tobytes()


def test_ordinary_weights_take_28_bits():
    weights = np.random.default_rng(0).normal(size=(1 << 18) + 1).astype(np.float32)
    assert coded_size(len(weights)) <= len(encode(weights)) < 1.001 * 3.5 * len(weights)
    out = np.empty_like(weights)
    CodedFloats.open(encode(weights), len(weights)).read(0, out)
    assert out.tobytes() == weights.tobytes()


@given(content=st.binary(max_size=200), count=st.integers(0, 100))
@PROPERTY
def test_any_bytes_in_place_of_weights_are_read_or_refused(content, count):
    try:
        opened = CodedFloats.open(np.frombuffer(content, np.uint8), count)
    except ValueError:
        return
    opened.read(0, np.empty(count, np.float32))


@pytest.fixture
def two_tasks():
    build = networks([4, 3])
    first = learn(None, build, tiny_task("a"))
    return build, first, learn(first, build, tiny_task("b"))


def record(name):
    return TaskRecord(
        name, "classification", ("x", "y"), (16, 16), (0.5,) * 3, (0.3,) * 3, "accuracy", 0.5, ""
    )


def test_commit_refuses_a_copy_in_which_an_earlier_task_has_drifted(two_tasks):
    build, first, _ = two_tasks
    state = starting_state(first, "classification", build("classification", 2, 5).state_dict())
    keep = {name: torch.zeros_like(mask) for name, mask in free(first, "classification").items()}
    name = next(name for name, owner in first.owner.items() if bool((owner == 1).any()))
    for free_name, mask in free(first, "classification").items():
        state[free_name] = torch.where(mask, 0.0, state[free_name])
    commit(first, record("c"), state, keep)  # as it is, it is sound
    state[name] = torch.where(first.owner[name] == 1, state[name] * 1.0000001 + 1e-7, state[name])
    with pytest.raises(PackingError, match="earlier tasks have changed"):
        commit(first, record("c"), state, keep)


def test_commit_refuses_released_weights_that_are_not_zero_and_weights_of_others(two_tasks):
    build, first, _ = two_tasks
    state = starting_state(first, "classification", build("classification", 2, 5).state_dict())
    unowned = free(first, "classification")
    nothing = {name: torch.zeros_like(mask) for name, mask in unowned.items()}
    with pytest.raises(PackingError, match="not zero"):
        commit(first, record("c"), state, nothing)
    everything = {name: torch.ones_like(mask) for name, mask in unowned.items()}
    with pytest.raises(PackingError, match="belong to earlier tasks"):
        commit(first, record("c"), state, everything)


def test_commit_leaves_the_store_that_it_was_given_as_it_was(two_tasks):
    build, first, _ = two_tasks
    before = digest(first.shared), digest(first.owner)
    learn(first, build, tiny_task("c"), 0.2)
    assert (digest(first.shared), digest(first.owner)) == before


def test_a_new_task_starts_from_the_private_state_before_it_with_a_fresh_head(two_tasks):
    build, _, packed = two_tasks
    fresh = build("classification", 3, 9).state_dict()
    start = starting_state(packed, "classification", fresh)
    for name in start:
        if name.startswith("head."):
            assert torch.equal(start[name], fresh[name])
        elif name in packed.owner:
            owned = packed.owner[name] > 0
            assert torch.equal(start[name][owned], packed.shared[name][owned])
            assert torch.equal(start[name][~owned], fresh[name][~owned])
        else:
            assert torch.equal(start[name], packed.private["b"][name])
    zero = starting_state(packed, "classification", fresh, start_zero=True)
    assert all(bool((zero[name][packed.owner[name] == 0] == 0).all()) for name in packed.owner)


def test_fine_tuning_moves_everything_but_the_heads():
    build = networks([4, 3])
    states = [build("classification", 3, seed).state_dict() for seed in (1, 2)]
    shared = {
        name: value
        for name, value in states[0].items()
        if name in learn(None, build, tiny_task("x")).owner
    }
    packed = commit_finetuned(empty({}, shared, "finetune", 0), record("a"), states[0])
    assert states_equal(task_state_dict(packed, "a"), states[0])
    packed = commit_finetuned(packed, record("b"), states[1])
    now = task_state_dict(packed, "a")
    for name in now:
        assert torch.equal(now[name], states[0 if name.startswith("head.") else 1][name])
    changed = [
        record.name
        for record in packed.tasks
        if record.digest != digest(task_state_dict(packed, record.name))
    ]
    assert changed == ["a"]
    assert not any(record.frozen for record in packed.tasks)


def test_the_packed_file_round_trips_and_equal_networks_give_equal_bytes(two_tasks, tmp_path):
    _, _, packed = two_tasks
    packed_file.write_packed(tmp_path / "one.safetensors", packed)
    turned = replace(packed, private=dict(reversed(packed.private.items())))
    packed_file.write_packed(tmp_path / "two.safetensors", turned)
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "two.safetensors"
    ).read_bytes()
    again = packed_file.read_packed(tmp_path / "one.safetensors")
    assert again.tasks == packed.tasks
    for task in ("a", "b"):
        assert states_equal(task_state_dict(again, task), task_state_dict(packed, task))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one.safetensors",
        "two.safetensors",
    ]


def test_a_file_holds_owned_weights_owner_maps_and_private_state_and_nothing_else(
    two_tasks, tmp_path
):
    _, _, packed = two_tasks
    path = tmp_path / "packed.safetensors"
    packed_file.write_packed(path, packed)
    stored = load_file(path)
    for name, owner in packed.owner.items():
        owned = torch.bincount(owner.flatten(), minlength=3)[1:].tolist()
        assert stored[f"owner/{name}"].numel() == map_size(owned, owner.numel())
    for position, task in enumerate("ab", 1):
        owned = torch.cat(
            [packed.shared[name][owner == position] for name, owner in packed.owner.items()]
        )
        assert stored[f"weights/{position}"].numpy().tolist() == encode(owned.numpy()).tolist()
        private = [value for _, value in sorted(packed.private[task].items())]
        coded = torch.cat([value.flatten() for value in private if value.dtype == torch.float32])
        plain = b"".join(raw_bytes(value) for value in private if value.dtype != torch.float32)
        assert stored[f"private/{task}"].numpy().tobytes() == (
            encode(coded.numpy()).tobytes() + plain
        )
        assert len(stored[f"private/{task}"]) < sum(value.nbytes for value in private)
    header = packed_file.header_of(packed)
    parts = packed_file.parts_of(header)
    assert packed_file.packed_size_of(header) == path.stat().st_size
    assert parts.weights + parts.owners + sum(parts.private.values()) + parts.header == (
        path.stat().st_size
    )
    assert path.stat().st_size - sum(value.nbytes for value in stored.values()) < 10_000


ODD_VALUES = [0.0, -0.0, 1e-45, 1e-39, 3e38, 1.5, -2.0, 1e-10]


@pytest.mark.parametrize("coded", [0, 1, 2, 3, 500])
def test_private_state_of_any_type_comes_back_to_the_bit(two_tasks, tmp_path, coded):
    _, _, packed = two_tasks
    values = torch.tensor([ODD_VALUES[place % len(ODD_VALUES)] for place in range(coded)])
    others = {
        f"other.{place}": torch.arange(3).to(kind)
        for place, kind in enumerate(
            (torch.float64, torch.int64, torch.int32, torch.float16, torch.bfloat16, torch.uint8)
        )
    }
    # names of other types lie between those of float32
    floats = {"a": values, "other.1x": torch.tensor(-0.0), "z": torch.zeros(0, 2), "zz": values}
    for private in (others | floats, others, floats, {}):
        odd = replace(packed, private={"a": private, "b": packed.private["b"]})
        path = tmp_path / "odd.safetensors"
        packed_file.write_packed(path, odd)
        assert packed_file.packed_size_of(packed_file.header_of(odd)) == path.stat().st_size
        again = packed_file.open_packed(path).private("a")
        assert again.keys() == private.keys()
        for name, value in private.items():
            assert (again[name].dtype, again[name].shape) == (value.dtype, value.shape)
            assert raw_bytes(again[name]) == raw_bytes(value)


def test_private_tensors_that_tasks_have_alike_are_described_once(two_tasks):
    _, first, packed = two_tasks
    one, two = (packed_file.header_of(network).private for network in (first, packed))
    other = dict(packed.private["b"])
    names = [name for name in other if name.startswith("head.")]
    for name in names:  # of more classes
        other[name] = torch.cat([other[name], other[name]])
    wider = replace(packed, private={"a": packed.private["a"], "b": other})
    three = packed_file.header_of(wider).private
    assert one.tensors == two.tensors
    assert len(three.tensors) == len(one.tensors) + len(names)
    assert two.of_task("a") == two.of_task("b") == three.of_task("a") == one.of_task("a")
    for part in three.of_task("b"):
        assert part.shape == list(other[part.name].shape)
    assert three.only(["a"]) == one


def test_a_network_that_one_task_owns_throughout_has_no_owner_map(tmp_path):
    packed = learn(None, networks([1]), tiny_task("a"), 0.0)
    packed_file.write_packed(tmp_path / "one.safetensors", packed)
    stored = load_file(tmp_path / "one.safetensors")
    assert set(stored) == {"weights/1", "private/a"}
    again = packed_file.read_packed(tmp_path / "one.safetensors")
    assert states_equal(again.shared, packed.shared)
    assert states_equal(again.owner, packed.owner)


def damaged(path, tmp_path, change):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as source:
        tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
        header = json.loads(source.metadata()["acll"])
    change(tensors, header)
    save_file(
        tensors,
        tmp_path / "damaged.safetensors",
        metadata={"acll": json.dumps(header, sort_keys=True)},
    )
    return tmp_path / "damaged.safetensors"


def test_reading_a_task_touches_what_it_needs_and_gives_its_state(two_tasks, tmp_path, monkeypatch):
    build, _, packed = two_tasks
    packed = learn(packed, build, tiny_task("c"))
    path = tmp_path / "packed.safetensors"
    packed_file.write_packed(path, packed)
    read, real = [], tensor_file.TensorFile.tensor
    monkeypatch.setattr(
        tensor_file.TensorFile, "tensor", lambda self, name: read.append(name) or real(self, name)
    )
    opened = packed_file.open_packed(path)
    assert [record.name for record in opened.header.tasks] == ["a", "b", "c"]
    assert not read
    for count, task in enumerate("abc", 1):
        read.clear()
        assert states_equal(opened.state(task), task_state_dict(packed, task))
        maps = {f"owner/{name}" for name in packed.owner}
        assert set(read) == {
            *maps,
            *(f"weights/{position}" for position in range(1, count + 1)),
            f"private/{task}",
        }
        assert len(read) == len(set(read))


def test_a_task_that_needs_no_decoder_reads_none(tmp_path, monkeypatch):
    packed = mixed_network()
    packed_file.write_packed(tmp_path / "packed.safetensors", packed)
    read, real = [], tensor_file.TensorFile.tensor
    monkeypatch.setattr(
        tensor_file.TensorFile, "tensor", lambda self, name: read.append(name) or real(self, name)
    )
    for task in ("masks", "classes"):
        read.clear()
        assert states_equal(
            packed_file.open_packed(tmp_path / "packed.safetensors").state(task),
            task_state_dict(packed, task),
        )
        assert any("decoder" in name for name in read) == (task == "masks")


def test_bytes_of_the_first_tasks_are_those_of_the_file_when_there_were_no_more(
    two_tasks, tmp_path
):
    _, before, packed = two_tasks
    packed_file.write_packed(tmp_path / "before.safetensors", before)
    packed_file.write_packed(tmp_path / "packed.safetensors", packed)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("before", "packed")]
    assert bytes_of_first(packed_file.open_packed(tmp_path / "packed.safetensors").header) == sizes


def test_bytes_of_a_network_alone_are_those_of_its_file_when_nothing_is_released(tmp_path):
    packed = learn(None, networks([40, 30]), tiny_task("a"), 0.0)
    packed_file.write_packed(tmp_path / "whole.safetensors", packed)
    pruned = learn(None, networks([40, 30]), tiny_task("a"), 0.7)
    whole = bytes_alone(packed_file.header_of(pruned), "a")
    # the ratio has other digits, and a few values are far smaller than the largest, here or there
    assert abs((tmp_path / "whole.safetensors").stat().st_size - whole) <= 64
    assert packed_file.packed_size_of(packed_file.header_of(pruned)) < whole
    own = packed_file.header_of(packed)
    assert bytes_alone(own, "a") == packed_file.packed_size_of(own)


@pytest.mark.parametrize("task", ["masks", "classes"])
def test_a_task_alone_is_the_same_network_and_its_file_has_a_bit_a_weight_at_most(tmp_path, task):
    packed = mixed_network()
    packed_file.write_packed(tmp_path / "packed.safetensors", packed)
    own = packed_file.open_packed(tmp_path / "packed.safetensors").alone(task)
    assert states_equal(task_state_dict(own, task), task_state_dict(packed, task))
    assert any("decoder" in name for name in own.owner) == (task == "masks")
    assert own.record(task).digest == digest(task_state_dict(own, task))
    assert own.record(task).owned == sum(int((owner == 1).sum()) for owner in own.owner.values())
    packed_file.write_packed(tmp_path / "own.safetensors", own)
    assert states_equal(
        packed_file.open_packed(tmp_path / "own.safetensors").state(task),
        task_state_dict(packed, task),
    )
    stored = load_file(tmp_path / "own.safetensors")
    for name, owner in own.owner.items():
        if f"owner/{name}" in stored:
            assert len(stored[f"owner/{name}"]) <= (owner.numel() + 7) // 8
    assert packed_file.packed_size_of(packed_file.header_of(own)) < packed_file.packed_size_of(
        packed_file.header_of(packed)
    )


def test_what_no_file_may_say_is_not_written(tmp_path):
    packed = replace(tiny_packed("a"), method="two\nlines")
    with pytest.raises(
        PackingError, match=r"the network cannot be written to a file: .*has control characters"
    ):
        packed_file.write_packed(tmp_path / "network.safetensors", packed)
    assert list(tmp_path.iterdir()) == []


def test_a_task_alone_keeps_the_sign_of_its_zeros(tmp_path):
    packed = tiny_packed("a", "b")
    name = max(packed.shared, key=lambda name: int((packed.owner[name] == 1).sum()))
    packed.shared[name][packed.owner[name] == 1] = -0.0
    packed_file.write_packed(tmp_path / "packed.safetensors", packed)
    own = packed_file.open_packed(tmp_path / "packed.safetensors").alone("a")
    assert digest(task_state_dict(own, "a")) == digest(task_state_dict(packed, "a"))


def mixed_network():
    """Two tasks, the second of another kind than the first, in one network with a decoder."""

    def build(kind, classes, drawn):
        return build_network(
            DecoderNetwork(decoder="unet", encoder="resnet_small"), kind, classes, drawn
        )

    build.has_decoder = True
    packed = learn(None, build, tiny_task("masks", "segmentation", size=16, samples=4), 0.6)
    return learn(packed, build, tiny_task("classes", size=16, samples=4), 0.6)


def test_a_rank_has_a_half_for_the_latest_task_that_reads_it_and_a_quarter_for_the_one_before():
    packed = mixed_network()
    of_masks, of_classes = (task_state_dict(packed, task) for task in ("masks", "classes"))
    ranks = reading_ranks(packed, "segmentation")
    assert ranks.keys() == packed.owner.keys()
    for name, rank in ranks.items():
        size = packed.shared[name].abs() * (packed.owner[name] > 0)
        if name.startswith("decoder."):  # no task of classes has it
            read, left = 0.5 * (of_masks[name] != 0), 0.5
        else:
            read = 0.5 * (of_classes[name] != 0) + 0.25 * (of_masks[name] != 0)
            left = 0.25
        assert torch.allclose(rank, read + left * size / size.max(), atol=1e-6)
        assert torch.equal(rank > 0, packed.owner[name] > 0)
        assert rank.max() <= 1
    encoder = {name: rank for name, rank in ranks.items() if not name.startswith("decoder.")}
    assert states_equal(reading_ranks(packed, "classification"), encoder)
    nothing = empty(packed.network, packed.shared, "packing", 0)
    assert not any(bool(rank.any()) for rank in reading_ranks(nothing, "segmentation").values())


def test_no_more_than_the_latest_tasks_rank(monkeypatch):
    monkeypatch.setattr("acll.packing.ownership._LEAST", 0.5)
    packed = mixed_network()
    of_classes = task_state_dict(packed, "classes")
    for name, rank in reading_ranks(packed, "classification").items():
        size = packed.shared[name].abs() * (packed.owner[name] > 0)
        expected = 0.5 * (of_classes[name] != 0) + 0.5 * size / size.max()
        assert torch.allclose(rank, expected, atol=1e-6)


def first_shared(tensors):
    return next(name for name in tensors if name.startswith("weights/"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors, header: tensors[first_shared(tensors)].add_(1),
            "does not agree with its digest",
        ),
        (lambda tensors, header: tensors.pop(first_shared(tensors)), "does not hold the tensors"),
        (
            lambda tensors, header: header["tasks"][0].update(validation_score=1.0),
            "header does not agree",
        ),
        (lambda tensors, header: header.pop("digest"), "header does not agree"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(two_tasks, tmp_path, change, message):
    packed_file.write_packed(tmp_path / "packed.safetensors", two_tasks[2])
    with pytest.raises(PackingError, match=message):
        packed_file.read_packed(damaged(tmp_path / "packed.safetensors", tmp_path, change))


def test_an_unknown_format_a_truncated_file_and_a_missing_one_are_refused(two_tasks, tmp_path):
    path = tmp_path / "packed.safetensors"
    tensor_file.save_tensors(path, {}, {"format": 99})
    with pytest.raises(PackingError, match="format 99 is not known"):
        packed_file.read_packed(path)
    packed_file.write_packed(path, two_tasks[2])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PackingError, match="damaged"):
        packed_file.read_packed(path)
    path.write_bytes(b"not at all")
    with pytest.raises(PackingError, match="not a file of acll"):
        packed_file.read_packed(path)
    with pytest.raises(PackingError, match="no such file"):
        packed_file.read_packed(tmp_path / "absent.safetensors")


def test_a_task_that_was_not_learned_is_named_with_those_that_were(two_tasks):
    with pytest.raises(PackingError, match=r"has not learned 'z' \(its tasks: a, b\)"):
        task_state_dict(two_tasks[2], "z")


def test_commit_refuses_a_network_with_other_shared_weights_than_the_store(two_tasks):
    build, first, _ = two_tasks
    state = starting_state(first, "classification", build("classification", 2, 5).state_dict())
    keep = {name: torch.zeros_like(mask) for name, mask in free(first, "classification").items()}
    keep.pop(next(iter(keep)))
    with pytest.raises(PackingError, match="does not have the shared weights of the store"):
        commit(first, record("c"), state, keep)


def test_a_network_holds_255_tasks_and_no_more():
    build = networks([1])
    packed = learn(None, build, tiny_task("a"), 0.9)
    full = replace(
        packed, tasks=tuple(replace(packed.tasks[0], name=f"t{index}") for index in range(255))
    )
    state = starting_state(packed, "classification", build("classification", 2, 5).state_dict())
    keep = {name: torch.zeros_like(mask) for name, mask in free(packed, "classification").items()}
    with pytest.raises(PackingError, match="255 tasks at most"):
        commit(full, record("c"), state, keep)


@pytest.mark.parametrize("tasks", [1, 3, 7, 8, 20])
def test_files_of_any_number_of_tasks_round_trip(tmp_path, tasks):
    build = networks([2])
    one = learn(None, build, tiny_task("a"), 0.2)
    generator = torch.Generator().manual_seed(tasks)
    owner = {
        name: torch.randint(0, tasks + 1, value.shape, generator=generator).to(torch.uint8)
        for name, value in one.owner.items()
    }
    names = [f"t{index}" for index in range(tasks)]
    many = replace(
        one,
        owner=owner,
        tasks=tuple(replace(one.tasks[0], name=name) for name in names),
        private=dict.fromkeys(names, one.private["a"]),
    )
    copies = {
        name: {key: value.clone() for key, value in state.items()}
        for name, state in many.private.items()
    }
    packed_file.write_packed(tmp_path / "many.safetensors", replace(many, private=copies))
    again = packed_file.read_packed(tmp_path / "many.safetensors")
    assert all(torch.equal(again.owner[name], owner[name]) for name in owner)


def test_the_key_of_files_larger_than_memory_needs_no_memory_for_them(tmp_path):
    large, small = tmp_path / "large", tmp_path / "small"
    with large.open("wb") as file_:
        file_.truncate(64 * 2**20)
    small.write_bytes(b"x")
    tracemalloc.start()
    try:
        key = tensor_file.content_key("{}", large, None)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    others = ((large, small), (small, None), (None, large), (None,))
    keys = {tensor_file.content_key("{}", *paths) for paths in others}
    assert len(keys | {key, tensor_file.content_key("[]", large, None)}) == 6
