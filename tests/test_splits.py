"""Cutting splits, and copies across them."""

import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from acll.data.manifest import group_of
from acll.data.splits import merge_groups, strata_of, stratified_group_split
from datasets import (
    PETS,
    PROPERTY,
    SPLITS,
    STREETS,
    changed,
    fault,
    generated,
    pets,
    picture,
    prepare,
    raster,
    report_of,
    save,
    smooth,
    streets,
)  # fmt: skip


def names(count) -> list[str]:
    return [f"{index:05d}" for index in range(count)]


@st.composite
def stratified(draw):
    """Labels of classes of ten samples or more, in any order or sorted by class."""
    sizes = draw(st.lists(st.integers(10, 60), min_size=1, max_size=8))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    if draw(st.booleans()):
        labels = np.random.default_rng(draw(st.integers(0, 9))).permutation(labels)
    return labels, sizes


shares = st.floats(0.1, 0.5)
seeds = st.integers(0, 2**32)


@PROPERTY
@given(stratified(), shares, seeds)
def test_a_cut_takes_the_share_asked_for_of_the_whole_and_of_each_class(drawn, share, seed):
    labels, sizes = drawn
    off = stratified_group_split(labels, names(len(labels)), share, seed)
    assert abs(off.sum() - share * len(labels)) <= 1
    for label, size in enumerate(sizes):
        assert abs((labels[off] == label).sum() - share * size) <= 1
        assert (labels[~off] == label).any()


@PROPERTY
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), shares, seeds)
def test_a_cut_says_of_each_sample_whether_it_goes_and_leaves_some_on_either_side(
    labels, share, seed
):
    off = stratified_group_split(np.array(labels), names(len(labels)), share, seed)
    assert off.shape == (len(labels),)
    assert off.dtype == bool
    assert off.any()
    assert not off.all()


@PROPERTY
@given(stratified(), shares, seeds)
def test_a_cut_depends_on_its_seed_alone(drawn, share, seed):
    labels, _ = drawn
    np.random.seed(seed % 1000)
    first = stratified_group_split(labels, names(len(labels)), share, seed)
    assert np.array_equal(stratified_group_split(labels, names(len(labels)), share, seed), first)


def test_another_seed_cuts_others():
    labels = np.arange(100) % 3
    assert not np.array_equal(
        stratified_group_split(labels, names(100), 0.2, 0),
        stratified_group_split(labels, names(100), 0.2, 1),
    )


def test_a_cut_is_shuffled_within_a_class():
    off = stratified_group_split(np.zeros(1000, int), names(1000), 0.2, 0)
    assert 400 < np.flatnonzero(off).mean() < 600


@PROPERTY
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=4, max_size=80),
    shares,
    seeds,
)
def test_groups_stay_whole(members, share, seed):
    groups = np.array([f"g{group}" for group, _ in members])
    off = stratified_group_split(np.array([label for _, label in members]), groups, share, seed)
    assert not set(groups[off]) & set(groups[~off])
    if len(set(groups)) > 1:
        assert off.any()
        assert not off.all()


@PROPERTY
@given(st.integers(10, 40), st.integers(1, 5), shares, seeds)
def test_the_share_is_right_for_groups_of_one_size(count, size, share, seed):
    groups = np.array([f"g{index // size:02d}" for index in range(count * size)])
    off = stratified_group_split(np.zeros(count * size, int), groups, share, seed)
    assert abs(len(set(groups[off])) - share * count) <= 1


@PROPERTY
@given(st.integers(2, 12), shares, seeds)
def test_masks_are_stratified_by_the_rarest_class_present(rare, share, seed):
    """All masks have class 0, half have class 1, few have class 2: those are on both sides."""
    present = np.zeros((80, 3), bool)
    present[:, 0] = True
    present[:40, 1] = True
    present[:rare, 2] = True
    off = stratified_group_split(strata_of(present), names(80), share, seed)
    for part in (off, ~off):
        assert present[part, 1].any()
        assert present[part, 2].any()
    assert abs(present[off, 2].sum() - share * rare) <= 1


def test_groups_are_what_the_pattern_matches():
    ids = ("train/a/seq01_3.png", "train/a/seq01_4.png", "train/a/seq02_3.png", "train/a/alone.png")
    assert [group_of(name, r"seq\d+") for name in ids] == [
        "seq01",
        "seq01",
        "seq02",
        "train/a/alone.png",
    ]
    assert [group_of(name, None) for name in ids] == list(ids)


def test_a_pattern_keeps_neighbouring_files_in_one_split(tmp_path):
    images = pets(tmp_path)
    task = changed(PETS, group=r"(cat|dog)/[0-3]|(cat|dog)/[4-7]", test_share=0.5)
    for path in sorted((images / "pets/train/cat").iterdir()):
        for number, letter in enumerate("abc", 1):
            save(
                path.with_name(f"{path.stem}{letter}.png"),
                np.asarray(Image.open(path)) + 20 * number,
            )
    splits = prepare(task, images).splits
    groups = {split: {id_.split("/", 1)[1][:5] for id_ in splits[split].ids} for split in SPLITS}
    assert sum(map(len, groups.values())) == len(set.union(*groups.values()))


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_groups_are_united_where_they_share_a_twin_however_long_the_chain(members):
    groups, digests = [f"g{group}" for group, _ in members], [digest for _, digest in members]
    made = merge_groups(groups, np.array(digests)[:, None])
    links = [{index} for index in range(len(members))]
    for _ in members:
        links = [
            {other for other in range(len(members)) for one in link
             if groups[one] == groups[other] or digests[one] == digests[other]}
            for link in links
        ]  # fmt: skip
    for one, link in enumerate(links):
        assert {other for other in range(len(members)) if made[other] == made[one]} == link
    assert set(made) <= set(groups)


@pytest.mark.parametrize("count", [4, 10, 23, 26, 27])
def test_a_task_can_train_on_fewer_samples_and_keeps_its_other_splits(tmp_path, count):
    whole, less = prepare(generated(), tmp_path), prepare(generated(train_samples=count), tmp_path)
    chosen = less.splits["train"]
    assert len(chosen) == count
    assert set(chosen.ids) <= set(whole.splits["train"].ids)
    assert set(chosen.labels) == {0, 1, 2, 3}
    for split in ("val", "test"):
        assert less.splits[split].ids == whole.splits[split].ids


def test_more_training_samples_than_there_are_are_refused(tmp_path):
    assert "train_samples = 500: there are 27 training samples" in fault(
        generated(train_samples=500), tmp_path
    )


def test_black_images_do_not_tie_groups_together(tmp_path):
    for patient in range(8):
        for number in range(4):
            pixels = picture(0) if number == 0 else smooth(10 * patient + number, (12, 10))
            save(
                tmp_path / f"pets/train/{'cat' if patient % 2 else 'dog'}/p{patient}_{number}.png",
                pixels,
            )
    made = prepare(changed(PETS, group=r"p\d+"), tmp_path)
    for split in made.splits.values():
        assert len(split) % 4 == 0
        assert len(split) > 0


def test_a_group_in_two_given_splits_is_a_leak(tmp_path):
    for split in ("train", "test"):
        for number in range(16):
            label, pet = "cat" if number % 2 else "dog", number + 12 * (split == "test")
            name = f"pets/{split}/{label}/p{pet}_{split}.png"
            save(tmp_path / name, smooth(number + 20 * (split == "test"), (12, 10)))
    grouped = changed(PETS, group=r"p\d+_", validation_share=0.4)
    assert "of the group 'p12_', which is in test too" in fault(
        changed(grouped, duplicates="stop"), tmp_path
    )
    assert prepare(grouped, tmp_path).summary["warnings"] == {"group": 4}
    assert prepare(changed(grouped, duplicates="skip"), tmp_path).summary["left_out"] == {
        "group": 4
    }


# --------------------------------------------------------------------------------------------------
# copies


@pytest.mark.parametrize("overlap", [None, 4])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint16, 1500), (np.float32, 3000)])
def test_copies_of_deep_images_are_found_whatever_their_range(tmp_path, dtype, top, overlap):
    for number in range(12):
        split = "test" if number > 8 else "train"
        base = smooth(number if number != 11 else 3)[..., 0] / 255 * top
        raster(tmp_path / f"streets/{split}/images/{number}.tif", (base[None] + 100).astype(dtype))
        save(
            tmp_path / f"streets/{split}/masks/{number}.png", np.arange(48 * 48).reshape(48, 48) % 2
        )
    size = [48, 48] if overlap is None else [32, 32]
    task = changed(STREETS, image_size=size, tile_overlap=overlap, validation_share=0.3)
    found = prepare(task, tmp_path).summary["warnings"]
    assert found.get("exact copy", 0) == (1 if overlap is None else 4)


BLOTS = changed(PETS, image_size=[48, 48])


@pytest.fixture
def blots(tmp_path):
    """Twelve unlike images in train, six in test; train has a copy of the first of these and a JPEG
    of the second."""
    for number in range(12):
        save(tmp_path / f"pets/train/{'cat' if number % 2 else 'dog'}/{number}.png", smooth(number))
    for number in range(12, 18):
        save(tmp_path / f"pets/test/{'cat' if number % 2 else 'dog'}/{number}.png", smooth(number))
    save(tmp_path / "pets/train/dog/exact.png", smooth(12))
    save(tmp_path / "pets/train/cat/near.jpg", smooth(13), quality=80)
    return tmp_path


COPIES = {
    ("exact copy", "train/dog/exact.png", "in train: the same as test/dog/12.png in test"),
    ("near copy", "train/cat/near.jpg", "in train: almost the same as test/cat/13.png in test"),
}


def test_unlike_images_are_no_copies(blots):
    (blots / "pets/train/dog/exact.png").unlink()
    (blots / "pets/train/cat/near.jpg").unlink()
    assert prepare(BLOTS, blots).summary["warnings"] == {}
    assert report_of(blots) == []


def found(root, treated) -> set[tuple[str, str, str]]:
    """What the report says of copies with the test; the validation split has been cut, and may hold
    one of them."""
    rows = report_of(root)
    assert {row[0] for row in rows} == {treated}
    return {
        (kind, file, message.replace("in val:", "in train:")) for _, kind, file, message in rows
    }


def test_copies_across_splits_are_warned_of(blots):
    made = prepare(BLOTS, blots)
    assert made.summary["warnings"] == {"exact copy": 1, "near copy": 1}
    assert made.summary["left_out"] == {}
    assert found(blots, "warning") == COPIES
    assert len(made.every()) == 20


def test_copies_across_splits_stop_a_task_that_says_so(blots):
    head, *lines = fault(changed(BLOTS, duplicates="stop"), blots).split("\n")
    assert head.startswith("x: 2 files cannot be used (duplicates: stop; `skip` leaves them out)")
    assert len(lines) == 2
    assert found(blots, "refused") == COPIES


def test_copies_of_test_images_are_left_out_of_the_other_splits_alone(blots):
    made = prepare(changed(BLOTS, duplicates="skip"), blots)
    assert made.summary["left_out"] == {"exact copy": 1, "near copy": 1}
    assert found(blots, "left out") == COPIES
    assert len(made.splits["test"]) == 6
    assert {name for name in made.every() if name.startswith("train/")} == {
        f"train/{'cat' if number % 2 else 'dog'}/{number}.png" for number in range(12)
    }


def test_all_copies_of_a_test_image_are_left_out_and_not_the_first_alone(blots):
    save(blots / "pets/train/dog/exact2.png", smooth(12))
    save(blots / "pets/train/dog/near2.jpg", smooth(12), quality=80)
    save(blots / "pets/train/dog/near3.jpg", smooth(12), quality=85)
    made = prepare(changed(BLOTS, duplicates="skip"), blots)
    assert made.summary["left_out"] == {"exact copy": 2, "near copy": 3}
    assert sum(made.summary["samples"].values()) == 18


def test_a_copy_of_a_validation_image_is_left_out_of_train_alone(blots):
    shutil.copytree(blots / "pets/test", blots / "pets/val")
    shutil.rmtree(blots / "pets/test")
    made = prepare(changed(BLOTS, duplicates="skip", test_share=0.1), blots)
    assert len(made.splits["val"]) == 6
    assert not {"train/dog/exact.png", "train/cat/near.jpg"} & set(made.splits["train"].ids)


@pytest.mark.parametrize("seed", range(5))
def test_exact_copies_within_train_stay_in_one_split_where_splits_are_cut(tmp_path, seed):
    for number in range(8):
        for copy in range(3):
            save(
                tmp_path / f"pets/train/{'cat' if number % 2 else 'dog'}/{number}_{copy}.png",
                smooth(number),
            )
    made = prepare(changed(BLOTS, split_seed=seed), tmp_path)
    where = Counter(
        (name.split("_")[0], split) for split in SPLITS for name in made.splits[split].ids
    )
    assert set(where.values()) == {3}
    assert made.summary["warnings"] == {}


def test_an_image_with_two_labels_is_warned_of(blots):
    shutil.copy(blots / "pets/train/cat/3.png", blots / "pets/train/dog/3.png")
    assert prepare(BLOTS, blots).summary["warnings"]["two labels"] == 1
    (row,) = [row for row in report_of(blots) if row[1] == "two labels"]
    assert row[2:] == ("train/dog/3.png", "dog, but the same image is cat: train/cat/3.png")


def test_classes_that_a_cut_split_lacks_are_warned_of(tmp_path):
    task = changed(STREETS, classes=["road", "sky", "tram"])
    assert prepare(task, streets(tmp_path)).summary["warnings"] == {"class": 3}
    assert {row[1:] for row in report_of(tmp_path)} == {
        ("class", split, "has no sample of tram") for split in SPLITS
    }
