"""A task is dropped for good: all others stay to the bit, and what nobody reads is free."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import acll
from acll.cli.main import main
from acll.methods.joint import Joint
from acll.networks.build import build
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork, PerceptronNetwork, at_width
from acll.networks.widening import inputs_in_wider
from acll.packing import dropping, packed_file
from acll.packing.accounting import bytes_of_first
from acll.packing.dropping import without_task
from acll.packing.ownership import (
    PackingError,
    commit,
    commit_finetuned,
    commit_read,
    digest,
    empty,
    free,
    kind_uses,
    starting_state,
    task_state_dict,
    widened,
)
from acll.serving.export import export_task
from conftest import building, learn, states_equal, tiny_packed, tiny_task, usual_record

# --------------------------------------------------------------------------------------------------
# stores of random values: any sequence of tasks, each way to commit them


SHAPES = {"encoder.a": (4, 3, 2), "encoder.b": (5, 4), "decoder.c": (3, 5)}
PRIVATE = {"head.weight": (3, 4), "norm.weight": (4,), "norm.bias": (4,)}
WAYS = ("all", "chosen", "read", "finetuned", "joint")
SHARES = st.sampled_from([0.0, 0.3, 0.9, 1.0])


def fresh(packed, kind, generator):
    """The state dict of a new network of a task."""
    shapes = {name: value.shape for name, value in packed.shared.items() if kind_uses(kind, name)}
    state = {
        name: torch.randn(shape, generator=generator) for name, shape in (shapes | PRIVATE).items()
    }
    return state | {"norm.count": torch.randint(0, 9, (), generator=generator)}


def record_of(name, kind, width=0.25):
    return usual_record(tiny_task(name, kind, size=8)[2], 0.5, (0.25, 0.5), {"ratio": 0.5}, width)


def committed(packed, record, way, kept, left_out, generator):
    """The store with one more task. kept: share of what is free. left_out: share of what earlier
    tasks own, where a task may leave out anything."""
    own = fresh(packed, record.kind, generator)
    if way == "finetuned":
        return commit_finetuned(packed, record, own)
    state, keep = starting_state(packed, record.kind, own), {}
    for name, unowned in free(packed, record.kind).items():
        drawn = torch.rand(unowned.shape, generator=generator)
        keep[name] = unowned & (drawn < kept)
        gone = unowned & ~keep[name]
        if way != "all":
            gone |= ~unowned & (drawn < left_out)
        state[name] = state[name].masked_fill(gone, 0.0)
    if way == "read":
        return commit_read(packed, record, state)
    return commit(packed, record, state, keep, way)


def jointly(packed, kinds, generator):
    """The store of tasks that are learned at once."""
    shared, whole = fresh(packed, "segmentation", generator), {}
    for number, kind in enumerate(kinds):
        own = fresh(packed, kind, generator)
        own |= {name: shared[name] for name in own if name in packed.shared}
        whole |= {f"{number}.{name}": value for name, value in own.items()}
    records = [record_of(f"task{number}", kind) for number, kind in enumerate(kinds)]
    return Joint.commit(packed, records, whole)


def wider(packed):
    """The store with two more channels on each side, the first of them before the last input."""
    shapes, inputs = {}, {}
    for name, value in packed.shared.items():
        first, second, *rest = value.shape
        shapes[name] = (first + 2, second + 2, *rest)
        inputs[name] = [*range(second - 1), second]
    return widened(packed, shapes, inputs)


@st.composite
def stores(draw):
    """The stores after each of two to five tasks; of tasks that are learned at once one store."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    way = draw(st.sampled_from(WAYS))
    kinds = draw(
        st.lists(st.sampled_from(["classification", "segmentation"]), min_size=2, max_size=5)
    )
    shared = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    packed, width, found = empty({"width": 0.25}, shared, "method", 0), 0.25, []
    if way == "joint":
        return [jointly(packed, kinds, generator)]
    for number, kind in enumerate(kinds):
        if number and way != "finetuned" and draw(st.booleans()):
            packed, width = wider(packed), width * 1.5
        record = record_of(f"task{number}", kind, width)
        packed = committed(packed, record, way, draw(SHARES), draw(SHARES), generator)
        found.append(packed)
    return found


def flat(packed, width):
    """For each shared tensor, where in it the weights of a network of a width are."""
    return {
        name: corner.of(torch.arange(packed.shared[name].numel()).view(packed.shared[name].shape))
        for name, corner in packed.corners(width).items()
    }


def reads(packed):
    """For each task, the weights that it reads: (name, where in the tensor). Weight by weight."""
    found = {}
    for position, record in enumerate(packed.tasks, 1):
        own, left_out = set(), packed.unread.get(record.name, {})
        for name, places in flat(packed, record.width).items():
            owners, unread = packed.owner[name].flatten().tolist(), left_out.get(name)
            gone = [False] * places.numel() if unread is None else unread.flatten().tolist()
            if kind_uses(record.kind, name):
                own |= {
                    (name, place)
                    for place, is_gone in zip(places.flatten().tolist(), gone)
                    if 1 <= owners[place] <= position and not is_gone
                }
        found[record.name] = own
    return found


@given(stores(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_whatever_is_dropped_all_else_stays_to_the_bit_and_what_nobody_reads_is_free(
    tmp_path_factory, found, random
):
    path = tmp_path_factory.mktemp("dropped") / "network.safetensors"
    packed = found[-1]
    expected = {record.name: task_state_dict(packed, record.name) for record in packed.tasks}
    packed_file.write_packed(path, packed)
    for task in random.sample(sorted(expected), len(expected) - 1):
        size, before = path.stat().st_size, packed
        readers = reads(before)
        packed, dropped = without_task(before, task)
        packed_file.write_packed(path, packed)
        del expected[task], readers[task]
        opened = packed_file.open_packed(path)
        assert [record.name for record in packed.tasks] == sorted(expected)
        for name, state in expected.items():
            assert states_equal(task_state_dict(packed, name), state)
            assert states_equal(opened.state(name), state)
            assert states_equal(opened.whole().private[name], before.private[name])
            assert replace(opened.record(name), owned=0) == replace(before.record(name), owned=0)
        # each weight is owned by the first task that reads it, and by nobody where there is none
        places, owned = flat(before, packed.width), 0
        for name, owner in packed.owner.items():
            for place, own in zip(places[name].flatten().tolist(), owner.flatten().tolist()):
                found_readers = [task for task in expected if (name, place) in readers[task]]
                assert own == (packed.position(found_readers[0]) if found_readers else 0)
            assert not bool(packed.shared[name][owner == 0].any())
            owned += int((owner > 0).sum())
        for number, record in enumerate(packed.tasks, 1):
            assert record.owned == sum(int((own == number).sum()) for own in packed.owner.values())
        assert reads(packed).keys() == readers.keys()
        for name, own in reads(packed).items():
            inside = {layer: part.flatten().tolist() for layer, part in places.items()}
            assert {(layer, inside[layer][place]) for layer, place in own} == readers[name]
        # what is said of it
        position = before.position(task)
        own = {
            (name, place)
            for name, owner in before.owner.items()
            for place, one in enumerate(owner.flatten().tolist())
            if one == position
        }
        counts = {name: len(own & weights) for name, weights in readers.items()}
        assert dropped.readers == {name: count for name, count in counts.items() if count}
        assert dropped.stayed == len(own & set().union(*readers.values()))
        before_owned = sum(int((owner > 0).sum()) for owner in before.owner.values())
        assert dropped.freed == before_owned - owned
        # the file
        assert path.stat().st_size < size
        assert task.encode() not in path.read_bytes()
        assert packed_file.packed_size_of(opened.header) == path.stat().st_size
        with pytest.raises(PackingError, match=f"has not learned '{task}'"):
            without_task(packed, task)
    with pytest.raises(PackingError, match="is its only task: delete the file instead"):
        without_task(packed, packed.tasks[0].name)


@given(stores())
@settings(max_examples=50, deadline=None)
def test_without_its_last_task_a_network_is_to_the_byte_what_it_was_before(tmp_path_factory, found):
    before, after = (tmp_path_factory.mktemp("dropped") / name for name in ("before", "after"))
    packed = found[-1]
    assume(all(record.frozen for record in packed.tasks))  # nothing later has changed anything
    for earlier in reversed(found[:-1]):
        packed, _ = without_task(packed, packed.tasks[-1].name)
        packed_file.write_packed(before, earlier)
        packed_file.write_packed(after, packed)
        assert after.read_bytes() == before.read_bytes()


@given(stores(), st.integers(0, 4), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_a_network_without_a_task_learns_on_and_its_file_tells_the_bytes_of_each_stage(
    tmp_path_factory, found, number, seed
):
    packed, path = found[-1], tmp_path_factory.mktemp("dropped") / "network.safetensors"
    packed, _ = without_task(packed, packed.tasks[number % len(packed.tasks)].name)
    record = record_of("more", "segmentation", packed.width)
    more = committed(packed, record, "chosen", 0.5, 0.5, torch.Generator().manual_seed(seed))
    for one in packed.tasks:
        assert states_equal(task_state_dict(more, one.name), task_state_dict(packed, one.name))
    assume(all(one.frozen for one in more.tasks))
    sizes = []
    for count in range(1, len(more.tasks) + 1):
        first = more
        while len(first.tasks) > count:
            first, _ = without_task(first, first.tasks[-1].name)
        packed_file.write_packed(path, first)
        sizes.append(path.stat().st_size)
    assert bytes_of_first(packed_file.header_of(more)) == sizes


def test_weights_that_one_later_task_reads_and_another_leaves_out_stay_and_change_their_owner():
    shared = {"encoder.a": torch.zeros(1, 4)}
    packed = empty({}, shared, "method", 0)
    rows = {  # what each task has at each weight, and whether it keeps what is free
        "first": ([1.0, 2.0, 3.0, 0.0], [True, True, True, False]),
        "second": ([0.0, 2.0, 0.0, 0.0], [False] * 4),
        "third": ([1.0, 2.0, 0.0, 4.0], [False, False, False, True]),
    }
    for name, (values, keep) in rows.items():
        state = {"encoder.a": torch.tensor([values]), "head.bias": torch.ones(1)}
        record = record_of(name, "classification", 1.0)
        packed = commit(packed, record, state, {"encoder.a": torch.tensor([keep])}, "chosen")
    after, dropped = without_task(packed, "first")
    assert after.owner["encoder.a"].tolist() == [[2, 1, 0, 2]]
    assert after.shared["encoder.a"].tolist() == [[1.0, 2.0, 0.0, 4.0]]
    assert after.unread == {}
    assert [record.owned for record in after.tasks] == [1, 2]
    assert (dropped.freed, dropped.stayed) == (1, 2)
    assert dropped.readers == {"second": 1, "third": 2}


def test_weights_of_a_decoder_that_only_the_dropped_task_read_are_free_whoever_owned_them():
    shared = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    packed, generator = empty({}, shared, "method", 0), torch.Generator().manual_seed(0)
    for name, kind in (("classes", "classification"), ("masks", "segmentation")):
        packed = committed(packed, record_of(name, kind, 1.0), "finetuned", 0, 0, generator)
    assert bool((packed.owner["decoder.c"] == 1).all())  # as fine-tuning notes it
    after, dropped = without_task(packed, "masks")
    assert dropped.freed == math.prod(SHAPES["decoder.c"])
    assert dropped.stayed == 0
    assert not bool(after.owner["decoder.c"].any())
    assert bool((after.owner["encoder.a"] == 1).all())
    after, dropped = without_task(packed, "classes")
    assert (dropped.freed, dropped.readers) == (0, {"masks": dropped.stayed})
    assert dropped.stayed == sum(map(math.prod, SHAPES.values()))


# --------------------------------------------------------------------------------------------------
# networks


UNET = DecoderNetwork(decoder="unet", encoder="resnet_small", width=0.25)
RESNET = BackboneNetwork(backbone="resnet_small", width=0.25)


def grown():
    """A network that grew before each of its last two tasks."""
    packed, spec = learn(None, building(RESNET), tiny_task("a"), width=0.25), RESNET
    for name, width in (("b", 0.5), ("c", 0.75)):
        after = at_width(RESNET, width)
        narrow, wide = (build(one, "classification", 2, 0) for one in (spec, after))
        shapes = {one: wide.state_dict()[one].shape for one in partition(wide).shared}
        packed, spec = widened(packed, shapes, inputs_in_wider(narrow, wide, 3)), after
        packed = learn(packed, building(spec), tiny_task(name), width=width, left_out=0.3)
    return packed


NETWORKS = {
    "unet": lambda: tiny_packed(
        "a: segmentation", "b", "c: segmentation", spec=UNET, size=16, left_out=0.3
    ),
    "grown": grown,
    "perceptron": lambda: tiny_packed("a", "b", "c"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_of_any_network_what_is_left_is_loaded_predicts_and_is_exported_as_before(
    name, tmp_path, capsys
):
    packed = NETWORKS[name]()
    path, out = tmp_path / "network.safetensors", tmp_path / "smaller.safetensors"
    packed_file.write_packed(path, packed)
    side = packed.tasks[0].image_size[0]
    image = np.random.default_rng(0).integers(0, 256, (side + 3, side, 3), np.uint8)
    before = acll.load(path)
    for task in "abc":
        main(["drop", str(path), "--task", task, "--out", str(out)])
        after = acll.load(out)
        assert [one.name for one in after.tasks] == [one for one in "abc" if one != task]
        for own in (one.name for one in after.tasks):
            networks = [one.network(own) for one in (before, after)]
            for part in ("named_parameters", "named_buffers"):
                states = [dict(getattr(network, part)()) for network in networks]
                assert states_equal(*states)
            found = [one.predict(own, image, probabilities=True) for one in (before, after)]
            assert np.array_equal(found[0].probabilities, found[1].probabilities)
            opened = packed_file.open_packed(out)
            alone = tmp_path / "alone.safetensors"
            exported = export_task(opened, own, alone, "float32", None)
            assert exported.difference == 0
            assert digest(packed_file.open_packed(alone).state(own)) == packed.record(own).digest
        main(["inspect", str(out)])
        told = capsys.readouterr().out
        assert f"; {out.stat().st_size:,} bytes" in told
        with pytest.raises(SystemExit):
            main(["compare", str(path), str(out)])
        rows = capsys.readouterr().out.splitlines()[2:]
        states = {row.split()[0]: row.split()[1] for row in rows}
        assert states == {one: "only" if one == task else "equal" for one in "abc"}


def test_without_its_widest_task_a_network_is_as_narrow_as_the_others(tmp_path):
    packed = grown()
    name = next(iter(packed.shared))
    widths = {task: without_task(packed, task)[0] for task in "abc"}
    assert widths["c"].shared[name].shape == packed.corners(0.5)[name].shape
    assert [one.width for one in widths["c"].narrower] == [0.25]
    assert [one.width for one in widths["b"].narrower] == [0.25]
    assert [one.width for one in widths["a"].narrower] == [0.5]
    assert widths["a"].shared[name].shape == packed.shared[name].shape
    assert widths["a"].grew("b")


# --------------------------------------------------------------------------------------------------
# the command


@pytest.fixture
def network(tmp_path, monkeypatch):
    packed_file.write_packed(tmp_path / "network.safetensors", tiny_packed("a", "b", left_out=0.3))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "network.safetensors"


def test_the_command_says_what_is_free_what_stays_and_who_reads_it(network, capsys):
    before = network.read_bytes()
    _, dropped = without_task(packed_file.read_packed(network), "a")
    assert min(dropped.freed, dropped.stayed) > 0
    main(["drop", "network.safetensors", "--task", "a", "--out", "made/smaller.safetensors"])
    size = (network.parent / "made/smaller.safetensors").stat().st_size
    assert capsys.readouterr().out.splitlines() == [
        f"made/smaller.safetensors: without a, {size:,} bytes "
        f"(network.safetensors: {len(before):,})",
        f"weights that a alone read, now free: {dropped.freed:,}",
        f"weights of a that stay, since other tasks read them: {dropped.stayed:,}",
        f"they are read by b ({dropped.stayed:,})",
        "the other tasks are as they were, bit for bit",
    ]
    assert network.read_bytes() == before
    main(["drop", "network.safetensors", "--task", "b", "--out", "smaller.safetensors"])
    assert "stay" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "z", "--out", "x"], "network.safetensors: the network has not learned 'z'"),
        (["--task", "z", "--out", "x"], "(its tasks: a, b)"),
        (["--out", "x"], "say with --task which of its tasks is meant: a, b"),
        (["--task", "a"], "say with --out which file gets the network without a"),
        (["--task", "a", "--out", "./network.safetensors"], "is the network that is read"),
    ],
)
def test_mistakes_end_with_a_line_and_write_nothing(network, capsys, arguments, message):
    before = network.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["drop", "network.safetensors", *arguments])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in network.parent.iterdir()] == ["network.safetensors"]
    assert network.read_bytes() == before


def test_the_only_task_is_not_dropped(network, capsys):
    main(["drop", "network.safetensors", "--task", "a", "--out", "one.safetensors"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["drop", "one.safetensors", "--task", "b", "--out", "none.safetensors"])
    assert capsys.readouterr().err == (
        "error: one.safetensors: b is its only task: delete the file instead\n"
    )
    assert not (network.parent / "none.safetensors").exists()


def test_nothing_is_written_where_a_task_would_not_stay(network, monkeypatch, capsys):
    def wrong(packed, task):
        after, dropped = without_task(packed, task)
        name = next(name for name, owner in after.owner.items() if bool(owner.any()))
        off = torch.where(after.owner[name] > 0, after.shared[name] + 1, 0.0)
        return replace(after, shared=after.shared | {name: off}), dropped

    monkeypatch.setattr(dropping, "without_task", wrong)
    with pytest.raises(SystemExit):
        main(["drop", "network.safetensors", "--task", "a", "--out", "x.safetensors"])
    assert "x.safetensors: not written: b would not stay as it is" in capsys.readouterr().err
    assert [path.name for path in network.parent.iterdir()] == ["network.safetensors"]


def test_a_file_that_becomes_larger_says_why(tmp_path, capsys):
    """The first task owns whole layers, which need no owner map. Of what it owned the second one
    reads nearly all, which needs one."""
    spec = PerceptronNetwork(hidden=[300, 300], image_size=[4, 4], channels=3)
    packed = learn(None, building(spec), tiny_task("a", size=4), 0.0)
    packed = learn(packed, building(spec), tiny_task("b", size=4), 0.0, left_out=0.001)
    path, out = tmp_path / "network.safetensors", tmp_path / "larger.safetensors"
    packed_file.write_packed(path, packed)
    main(["drop", str(path), "--task", "a", "--out", str(out)])
    assert out.stat().st_size > path.stat().st_size
    assert "the file is larger: to tell which task owns what stays takes more than was freed" in (
        capsys.readouterr().out
    )
