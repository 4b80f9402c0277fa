"""Chosen reuse: tasks that do not read all weights of earlier ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acll.cli.networks import inspect
from acll.networks.build import build as built
from acll.networks.spec import PerceptronNetwork
from acll.packing import packed_file
from acll.packing.accounting import bytes_alone, bytes_of_first
from acll.packing.ownership import (
    PackingError,
    commit,
    digest,
    extract_task,
    free,
    starting_state,
    task_state_dict,
)
from acll.serving.export import export_task
from acll.serving.model import PackedNetwork, load
from conftest import learn, states_equal, tiny_packed, tiny_task, usual_record

SPEC = PerceptronNetwork(hidden=[6], image_size=[4, 4], channels=3)


@given(
    hidden=st.lists(st.integers(1, 8), min_size=1, max_size=2),
    shares=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=2, max_size=4),
    ratio=st.sampled_from([0.0, 0.5, 0.9]),
)
@settings(max_examples=20, deadline=None)
def test_whatever_is_left_out_earlier_tasks_stay_and_files_give_the_same_states(
    tmp_path_factory, hidden, shares, ratio
):
    folder = tmp_path_factory.mktemp("files")
    spec = PerceptronNetwork(hidden=hidden, image_size=[4, 4], channels=3)

    def build(kind, classes, seed):
        return built(spec, kind, classes, seed, pretrained=False)

    build.spec = spec.model_dump(mode="json")
    packed, before, sizes = None, {}, []
    for index, share in enumerate(shares):
        name, path = f"task{index}", folder / f"{index}.safetensors"
        packed = learn(packed, build, tiny_task(name, size=4), ratio, left_out=index and share)
        before[name] = task_state_dict(packed, name)
        packed_file.write_packed(path, packed)
        sizes.append(path.stat().st_size)
        opened = packed_file.open_packed(path)
        for task, state in before.items():
            assert states_equal(task_state_dict(packed, task), state)
            assert packed.record(task).digest == digest(state)
            assert states_equal(opened.state(task), state)
            alone = opened.alone(task)
            assert not alone.unread
            assert states_equal(task_state_dict(alone, task), state)
        again = opened.whole()
        assert again.unread.keys() == packed.unread.keys()
        for task, masks in packed.unread.items():
            assert states_equal(again.unread[task], masks)
            for layer, mask in masks.items():
                owners = packed.owner[layer][mask]
                assert bool(((owners > 0) & (owners < packed.position(task))).all())
        assert packed_file.packed_size_of(opened.header) == sizes[-1]
    assert bytes_of_first(opened.header) == sizes
    parts = packed_file.parts_of(opened.header)
    assert parts.weights + parts.owners + sum(parts.private.values()) + parts.header == sizes[-1]


def test_a_task_that_leaves_out_weights_is_as_large_alone_as_one_that_does_not(tmp_path):
    sizes = []
    for share in (0.0, 0.5):
        packed = tiny_packed("a")
        packed = learn(packed, builder(), tiny_task("b", size=4), 0.0, left_out=share)
        sizes.append(bytes_alone(packed_file.header_of(packed), "b"))
    assert abs(sizes[0] - sizes[1]) < 20  # numbers in the header have fewer or more digits


def builder():
    def build(kind, classes, seed):
        return built(SPEC, kind, classes, seed, pretrained=False)

    build.spec = SPEC.model_dump(mode="json")
    return build


def test_only_a_task_that_may_choose_leaves_out_and_nothing_else_may_change():
    packed = tiny_packed("a")
    state = starting_state(packed, "classification", builder()("classification", 3, 5).state_dict())
    keep = free(packed, "classification")
    name, owner = next((one, own) for one, own in packed.owner.items() if bool((own > 0).any()))
    record = usual_record(tiny_task("b", size=4)[2], 0.5, (), {})
    state[name] = state[name].masked_fill(owner > 0, 0.0)
    with pytest.raises(PackingError, match="earlier tasks have changed"):
        commit(packed, record, state, keep)
    after = commit(packed, record, state, keep, "chosen")
    assert bool(after.unread["b"][name][(owner > 0) & (packed.shared[name] != 0)].all())
    assert states_equal(task_state_dict(after, "b"), state)
    state[name] = state[name].masked_fill(owner > 0, 0.1)
    with pytest.raises(PackingError, match="earlier tasks have changed"):
        commit(packed, record, state, keep, "chosen")


def test_loading_exporting_and_weights_used_are_those_of_what_is_read(tmp_path, capsys):
    path = tmp_path / "network.safetensors"
    packed = tiny_packed("a")
    packed = learn(packed, builder(), tiny_task("b", size=4), left_out=0.5)
    packed_file.write_packed(path, packed)
    state = task_state_dict(packed, "b")
    assert states_equal(load(path).network("b").state_dict(), state)
    opened = packed_file.open_packed(path)
    export_task(opened, "b", tmp_path / "b.safetensors", "float32", None)
    alone = load(tmp_path / "b.safetensors").network("b")
    assert states_equal(alone.state_dict(), state)
    (known,) = [task for task in PackedNetwork(opened).tasks if task.name == "b"]
    total = sum(owner.numel() for owner in packed.owner.values())
    used = sum(int((state[name] != 0).sum()) for name in packed.owner)
    assert known.used_share == pytest.approx(used / total)
    gone = sum(int(mask.sum()) for mask in packed.unread["b"].values())
    assert known.unread_share == pytest.approx(gone / packed.tasks[0].owned)
    inspect(path, as_json=False)
    told = f"of the weights of earlier tasks, b leaves out {known.unread_share:.1%}\n"
    assert told in capsys.readouterr().out
    assert states_equal(extract_task(packed, "b", *parted(packed, state)).private["b"], {
        name: value for name, value in state.items() if name not in packed.owner
    })  # fmt: skip


def parted(packed, state):
    shared = {name: value for name, value in state.items() if name in packed.owner}
    return shared, {name: value for name, value in state.items() if name not in shared}
