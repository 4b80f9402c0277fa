"""Augmentation: known answers, and what holds of every kind of it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as library

from acll.data import augmentation, colours
from acll.data.augmentation import OPERATIONS, augmented, matrix, mixed, rotation, warp
from acll.data.batches import Split, training_batches
from acll.data.colours import PixelScale
from acll.data.prepared import IGNORE, TaskInfo
from acll.methods.base import Before
from acll.methods.ewc import EWC
from acll.methods.lwf import LwF
from acll.networks.build import build
from acll.networks.spec import BackboneNetwork
from acll.settings import AUGMENTATIONS, MIXING
from acll.training.distillation import distilled
from acll.training.joint import JointLearner
from acll.training.learner import TaskLearner
from acll.training.losses import loss_of
from conftest import batches, tiny_task
from datasets import CPU, PROPERTY
from test_methods import finetuned, unlearned

NAMES = AUGMENTATIONS
UNMIXED = [name for name in NAMES if name not in MIXING]
LATER = [name for name in UNMIXED if name not in ("flip", "vertical_flip", "shift")]


def info(channels=3, classes=4, size=(16, 24), pixel="uint8", mean=0.5, std=0.25):
    names = tuple(f"class_{number}" for number in range(classes))
    values = (mean,) * channels, (std,) * channels
    return TaskInfo("x", "classification", names, size, *values, pixel=pixel)


def sample(count=6, channels=3, size=(16, 24), classes=4, seed=0):
    """Normalised images and their masks."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, channels, *size, generator=generator)
    masks = torch.randint(0, classes, (count, *size), generator=generator).to(torch.uint8)
    return images, masks


def change(names, images, labels, seed=0, classes=4, **known):
    about = info(images.shape[1], classes, tuple(images.shape[2:]), **known)
    generator = torch.Generator().manual_seed(seed)
    mixing = [name for name in names if name in MIXING]
    if mixing:
        return mixed(images, labels, mixing, classes, generator)
    return augmented(images, labels, names, about, generator, copied)


def copied(images, floats):
    return floats.copy_(images)  # they are normalised


# --------------------------------------------------------------------------------------------------
# what holds of all


@PROPERTY
@given(st.lists(st.sampled_from(LATER), max_size=4, unique=True), st.integers(0, 99))
def test_the_same_seed_gives_the_same_bits_and_nothing_else_counts(names, seed):
    images, masks = sample()
    first = change(names, images, masks, seed)
    torch.manual_seed(seed)
    state = torch.random.get_rng_state()
    again = change(names, images, masks, seed)
    assert all(map(torch.equal, first, again))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", LATER)
def test_another_seed_gives_other_images(name):
    images, masks = sample()
    one, other = (change([name], images, masks, seed)[0] for seed in (0, 1))
    assert not torch.equal(one, other)


@PROPERTY
@given(st.lists(st.sampled_from(LATER), min_size=1, max_size=3, unique=True), st.integers(0, 99))
def test_a_sample_does_not_depend_on_its_neighbours(names, seed):
    images, masks = sample()
    others, other_masks = sample(seed=1)
    for of, values in ((others, images), (other_masks, masks)):
        of[2] = values[2]
    whole, alone = change(names, images, masks, seed), change(names, others, other_masks, seed)
    assert torch.equal(whole[0][2], alone[0][2])
    assert torch.equal(whole[1][2], alone[1][2])


@PROPERTY
@given(
    st.lists(st.sampled_from(LATER), min_size=1, max_size=4, unique=True),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([(16, 24), (7, 5), (1, 1)]),
    st.integers(0, 99),
)
def test_images_of_any_size_and_number_of_channels_stay_images_of_it(names, channels, size, seed):
    images, masks = sample(4, channels, size)
    found, labels = change(names, images, masks, seed)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert labels.shape == masks.shape
    assert labels.dtype == torch.uint8
    assert set(labels.unique().tolist()) <= {*masks.unique().tolist(), IGNORE}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", LATER)
def test_pixels_of_any_type_are_changed(name, dtype, channels):
    white = {torch.uint8: 255, torch.uint16: 65535, torch.float32: 3000.0}[dtype]
    images = (torch.rand(16, channels, 8, 8) * white).to(dtype)
    scale = 3000.0 if dtype == torch.float32 else 1.0  # of floats nobody knows what is white
    about = info(channels, size=(8, 8), pixel=str(dtype)[6:], mean=0.5 * scale, std=0.29 * scale)
    split = Split(images, torch.zeros(16, dtype=torch.int64))
    plain, found = (
        torch.cat([batch for batch, _ in training_batches(split, about, 8, names, 0, 0, CPU)])
        for names in ([], [name])
    )
    assert found.isfinite().all()
    assert not torch.equal(plain, found)
    assert found.abs().max() < 15  # standard deviations


@pytest.mark.parametrize("name", LATER)
def test_labels_of_classes_stay(name):
    images, _ = sample()
    labels = torch.tensor([3, 1, 2, 0, 1, 1])
    assert torch.equal(change([name], images, labels)[1], labels)


def test_flips_alone_draw_nothing_here():
    images, masks = sample()
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    found, _ = augmented(images, masks, ["flip", "shift"], info(), generator, copied)
    assert torch.equal(found, images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("name", LATER)
def test_large_batches_are_changed_as_small_ones_are(name, monkeypatch):
    """Only a few images go through the cache of a CPU at once."""
    images, masks = sample(7)
    whole = change([name], images, masks)
    monkeypatch.setattr(augmentation, "_VALUES_AT_ONCE", 2 * images[0].numel())
    assert all(map(torch.equal, whole, change([name], images, masks)))


def test_images_and_masks_that_are_given_stay():
    images, masks = sample()
    before = images.clone(), masks.clone()
    change(LATER, images, masks)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


# --------------------------------------------------------------------------------------------------
# moves


@PROPERTY
@given(st.integers(0, 99), st.sampled_from([(16, 24), (9, 9)]))
def test_the_identity_leaves_all_bits(seed, size):
    images, masks = sample(size=size, seed=seed)
    found = images.clone(), masks.clone()
    warp(*found, rotation(torch.zeros(6)))
    assert torch.equal(found[0], images)
    assert torch.equal(found[1], masks)


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turns_by_right_angles_are_those_of_torch(side, quarters):
    images, masks = sample(2, size=(side, side))
    found = images.clone(), masks.clone()
    warp(*found, rotation(torch.full((2,), 90.0 * quarters)))
    torch.testing.assert_close(found[0], images.rot90(quarters, (2, 3)), atol=1e-4, rtol=0)
    assert torch.equal(found[1], masks.rot90(quarters, (1, 2)))


def test_a_shift_by_whole_pixels_moves_images_and_masks_and_leaves_nothing_outside():
    images, masks = sample(2)
    found = images.clone(), masks.clone()
    warp(*found, matrix(2, x=torch.tensor([3.0, 0.0]), y=torch.tensor([0.0, -2.0])))
    torch.testing.assert_close(found[0][0, :, :, :-3], images[0, :, :, 3:], atol=1e-4, rtol=0)
    assert torch.equal(found[1][0, :, :-3], masks[0, :, 3:])
    assert (found[0][0, :, :, -2:].abs() < 1e-4).all()
    assert (found[1][0, :, -3:] == IGNORE).all()
    torch.testing.assert_close(found[0][1, :, 2:], images[1, :, :-2], atol=1e-4, rtol=0)
    assert torch.equal(found[1][1, 2:], masks[1, :-2])
    assert (found[1][1, :2] == IGNORE).all()


@PROPERTY
@given(
    st.lists(st.sampled_from(["crop", "affine", "rotation", {"rotation": 180.0}]), min_size=1),
    st.integers(0, 99),
)
def test_masks_are_moved_with_their_images(names, seed):
    """Where a channel, 1 in its class, still is 1, the mask has the class."""
    masks = torch.arange(4, dtype=torch.uint8).view(1, 2, 2).repeat(3, 1, 1)
    masks = masks.repeat_interleave(12, 1).repeat_interleave(16, 2)
    images = torch.stack([(masks == label).float() for label in range(4)], 1)
    found, labels = change(names, images, masks, seed)
    for label in range(4):
        certain = found[:, label] > 0.999
        assert (labels[certain] == label).all()
    assert (labels[found.sum(1) < 0.001] == IGNORE).all()
    assert (labels != masks).any()


def slopes(names, count=400, size=(32, 48)):
    """(from y, from x) of images of their own coordinates after a change: matrices [N, 2, 2]."""
    y, x = torch.meshgrid(*(torch.arange(side) - (side - 1) / 2 for side in size), indexing="ij")
    images = torch.stack([y, x]).repeat(count, 1, 1, 1)
    found, _ = change(names, images, torch.zeros(count, dtype=torch.int64))
    middle = found[:, :, 15:18, 23:26]
    return torch.stack(
        [middle[:, :, 1, 0] - middle[:, :, 0, 0], middle[:, :, 0, 1] - middle[:, :, 0, 0]], 2
    )


@pytest.mark.parametrize(("given", "most"), [("rotation", 15), ({"rotation": 60.0}, 60)])
def test_images_are_turned_by_as_many_degrees_as_are_set(given, most):
    found = slopes([given])
    degrees = torch.rad2deg(torch.atan2(found[:, 1, 0], found[:, 0, 0])).abs()
    assert 0.95 * most < degrees.max() <= most + 0.01
    assert degrees.min() < 0.1 * most
    torch.testing.assert_close(found.det(), torch.ones(400), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("given", "least"), [("crop", 0.25), ({"crop": 0.8}, 0.8)])
def test_crops_show_as_much_as_is_set(given, least):
    area = slopes([given]).det()
    assert least - 0.001 < area.min() < least + 0.05
    assert 0.97 < area.max() <= 1.001


def test_crops_lie_anywhere_within_the_image():
    images, masks = sample(200)
    _, labels = change([{"crop": 0.3}], images, masks)
    assert IGNORE not in labels
    y = torch.arange(16.0).view(1, 1, 16, 1).expand(200, 1, 16, 24)
    found = change([{"crop": 0.3}], y, masks)[0]
    assert found.min() < 0.5  # interpolation beyond the first row has a part of what is outside
    assert found.max() > 14.5
    assert found[:, 0, 8].mean(1).std() > 0.5


def test_moves_are_made_in_the_order_of_the_list():
    images, masks = sample(1)
    shifted = matrix(1, x=4.0)
    turned = rotation(torch.tensor([90.0]))
    one, other = ((images.clone(), masks.clone()) for _ in range(2))
    warp(*one, shifted @ turned)
    warp(*other, shifted)
    warp(*other, turned)
    inside = (one[1] != IGNORE) & (other[1] != IGNORE)
    assert inside.any()
    assert torch.equal(one[1][inside], other[1][inside])


# --------------------------------------------------------------------------------------------------
# colours: those of the library, where it does not cut off at black and white

VALUES = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0))  # of black … white
SCALE = PixelScale(info(), CPU)
FACTORS = torch.tensor([0.3, 0.8, 1.0, 1.4])


def in_values(function, *parameters):
    """What a function of normalised images makes of values of black … white."""
    return function((VALUES - 0.5) / 0.25, *parameters) * 0.25 + 0.5


def by_library(function, parameters):
    return torch.stack([function(image, one) for image, one in zip(VALUES, parameters)])


def assert_as_library(found, expected):
    torch.testing.assert_close(found.clamp(0, 1), expected, atol=2e-3, rtol=0)


def test_brightness_and_contrast_are_those_of_the_library():
    one = torch.ones(4)
    found = in_values(colours.recoloured, SCALE, FACTORS, one)
    assert_as_library(found, by_library(library.adjust_brightness, FACTORS.tolist()))
    found = in_values(colours.recoloured, SCALE, one, FACTORS)
    assert_as_library(found, by_library(library.adjust_contrast, FACTORS.tolist()))


def test_saturation_is_that_of_the_library_both_ways():
    expected = by_library(library.adjust_saturation, FACTORS.tolist())
    assert_as_library(in_values(colours.saturated, FACTORS, SCALE), expected)
    chroma = colours.chroma_matrix(FACTORS, torch.zeros(4))
    one = torch.ones(4)
    assert_as_library(in_values(colours.recoloured, SCALE, one, one, chroma), expected)


def test_hues_turn_and_greys_stay():
    one = torch.ones(4)
    turn = torch.tensor([0.0, 0.1, 0.5, 1.0])
    chroma = colours.chroma_matrix(one, turn)
    torch.testing.assert_close(chroma[[0, 3]], torch.eye(3).repeat(2, 1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(chroma.sum(2), torch.ones(4, 3), atol=1e-5, rtol=0)
    # a half turn gives what has the same grey and the opposite colour
    grey = SCALE.grey[:, 0, 0]
    torch.testing.assert_close(chroma[2] + torch.eye(3), 2 * grey.repeat(3, 1), atol=1e-2, rtol=0)
    red = chroma[1] @ torch.tensor([1.0, 0.0, 0.0])
    assert red[0] > red[2] != red[1]


def test_sharpness_solarisation_and_posterisation_are_those_of_the_library():
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # its border is left as it is
    found = in_values(colours.sharpened, FACTORS)[inner]
    assert_as_library(found, by_library(library.adjust_sharpness, FACTORS.tolist())[inner])
    shares = torch.tensor([0.0, 0.25, 0.5, 1.0])
    found = in_values(colours.solarised, shares, SCALE)
    assert_as_library(found, by_library(library.solarize, (1 - shares).tolist()))
    bits = torch.tensor([1.0, 2.0, 4.0, 8.0])
    found = in_values(colours.posterised, bits, SCALE)
    levels = [len(image.mul(1000).round().unique()) for image in found]
    assert levels[:3] == [2, 4, 16]
    assert levels[3] > 200
    assert found[0].unique().tolist() == [0, 0.5]
    ends = torch.tensor([-2.0, 2.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    found = colours.posterised(ends, torch.tensor([2.0]), SCALE)
    torch.testing.assert_close(found[0, :, 0, 0], torch.full((3,), -2.0))
    torch.testing.assert_close(found[0, :, 0, 1], torch.full((3,), 1.0))


def test_contrast_is_stretched_and_values_are_equalised_as_by_the_library():
    assert_as_library(in_values(colours.autocontrast, SCALE), library.autocontrast(VALUES))
    dark = torch.rand(2, 3, 100, 100, generator=torch.Generator().manual_seed(0)).square() * 0.7
    bytes_of = (dark * 255).round().to(torch.uint8)
    found = colours.equalised((bytes_of / 255 - 0.5) / 0.25, SCALE) * 0.25 + 0.5
    expected = library.equalize(bytes_of).float() / 255
    # it leaves the rest of a division out, and counts the pixels below a level alone
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0)
    quantiles = found.flatten(2).quantile(torch.linspace(0.1, 1, 10), dim=2)
    expected = torch.linspace(0.1, 1, 10)[:, None, None].expand(-1, 2, 3)
    torch.testing.assert_close(quantiles, expected, atol=0.06, rtol=0)


def test_channels_of_one_value_are_neither_stretched_nor_equalised():
    images = torch.full((2, 3, 4, 5), -0.7)
    assert torch.equal(colours.autocontrast(images, SCALE), images)
    assert torch.equal(colours.equalised(images, SCALE), images)


def test_blur_is_that_of_the_library():
    sigma = torch.tensor([0.1, 0.6, 1.0, 2.0])
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # it mirrors at the border
    expected = by_library(lambda image, one: library.gaussian_blur(image, [5, 5], [one]), sigma)
    assert_as_library(in_values(colours.blurred, sigma)[inner], expected[inner])


def test_black_and_white_are_near_the_values_of_the_task():
    twelve_bits = PixelScale(info(1, pixel="uint16", mean=0.02, std=0.01), CPU)
    assert (twelve_bits.black.item(), twelve_bits.white.item()) == pytest.approx((-2, 3))
    floats = PixelScale(info(1, pixel="float32", mean=1000.0, std=500.0), CPU)
    assert (floats.black.item(), floats.white.item()) == (-3, 3)
    digits = PixelScale(info(1, mean=0.13, std=0.31), CPU)
    assert digits.black.item() == pytest.approx(-0.13 / 0.31)
    assert digits.white.item() == pytest.approx(0.87 / 0.31)


def test_brightness_changes_mean_and_contrast_of_each_image_by_shares_of_the_deviation():
    images = torch.randn(200, 3, 16, 24)
    after, _ = change(["brightness"], images, torch.zeros(200, dtype=torch.int64))
    level = after.mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))
    contrast = after.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert 0.35 < level.abs().max() <= 0.4001
    assert 0.79 < contrast.min() < 0.85
    assert 1.15 < contrast.max() < 1.21


def test_colour_leaves_grey_images_grey():
    grey = torch.rand(64, 1, 8, 8).expand(-1, 3, -1, -1).contiguous()
    found, _ = change(["colour"], grey, torch.zeros(64, dtype=torch.int64))
    torch.testing.assert_close(found[:, 0], found[:, 2], atol=1e-4, rtol=0)
    alone, _ = change(["colour"], grey[:, :1], torch.zeros(64, dtype=torch.int64))
    torch.testing.assert_close(found[:, :1], alone, atol=1e-4, rtol=0)


def test_erased_boxes_have_the_mean_and_masks_stay():
    images = torch.ones(400, 2, 32, 48)
    masks = torch.zeros(400, 32, 48, dtype=torch.uint8)
    found, labels = change(["erasing"], images, masks)
    assert torch.equal(labels, masks)
    assert found.unique().tolist() == [0, 1]
    share = 1 - found[:, 0].mean((1, 2))
    assert 0.4 < (share > 0).float().mean() < 0.6
    assert 0.01 < share[share > 0].min() < 0.03
    assert 0.3 < share.max() < 0.35
    rows = (found[:, 0] == 0).any(2).sum(1)
    columns = (found[:, 0] == 0).any(1).sum(1)
    torch.testing.assert_close(rows * columns / (32 * 48), share, atol=1e-5, rtol=0)


# --------------------------------------------------------------------------------------------------
# TrivialAugment and RandAugment


def test_the_operations_are_those_of_the_library_at_its_strengths():
    known = {
        "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness",
        "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
    }  # fmt: skip
    wide, standard = (
        v2.TrivialAugmentWide()._AUGMENTATION_SPACE,
        v2.RandAugment()._AUGMENTATION_SPACE,
    )
    assert set(wide) == set(standard) == known
    names = {
        "Rotate": "rotate", "ShearX": "shear_x", "ShearY": "shear_y", "Brightness": "brightness",
        "Color": "saturation", "Contrast": "contrast", "Sharpness": "sharpness",
    }  # fmt: skip
    for name, ours in names.items():
        most = [float(space[name][0](31, 10, 10)[-1]) for space in (wide, standard)]
        assert (OPERATIONS[ours].wide, OPERATIONS[ours].standard) == pytest.approx(tuple(most))
    bits = [8 - int(space["Posterize"][0](31, 10, 10)[-1]) for space in (wide, standard)]
    assert [OPERATIONS["posterise"].wide, OPERATIONS["posterise"].standard] == bits
    assert len(OPERATIONS) == len(known)


def test_trivialaugment_leaves_some_images_and_moves_masks_with_the_others():
    images, masks = sample(200)
    found, labels = change(["trivialaugment"], images, masks)
    same = (found == images).flatten(1).all(1)
    kept = (labels == masks).flatten(1).all(1)
    assert 0.04 < same.float().mean() < 0.2
    assert kept[same].all()
    assert 0.2 < (~kept).float().mean() < 0.45  # of five of fourteen operations, less weak ones
    twice, _ = change(["randaugment"], images, masks)
    assert (twice == images).flatten(1).all(1).float().mean() < same.float().mean()


# --------------------------------------------------------------------------------------------------
# mixtures


def of_classes(count=64, classes=4):
    """Images of which the channel of their class is 1, in the order of their classes."""
    labels = torch.arange(count) * classes // count
    channels = (labels[:, None] == torch.arange(classes)).float()
    return channels[:, :, None, None].expand(-1, -1, 16, 24).contiguous(), labels


@PROPERTY
@given(st.sampled_from([["mixup"], ["cutmix"], ["mixup", "cutmix"]]), st.integers(0, 99))
def test_labels_of_mixtures_are_the_shares_of_each_class_in_the_image(names, seed):
    images, labels = of_classes()
    found, shares = change(names, images, labels, seed)
    assert shares.dtype == torch.float32
    torch.testing.assert_close(found.mean((2, 3)), shares, atol=1e-5, rtol=0)
    torch.testing.assert_close(shares.sum(1), torch.ones(64), atol=1e-5, rtol=0)
    whole = ((found == 0) | (found == 1)).flatten(1).all(1)
    mixed = (shares.max(1).values < 0.999).float().mean()
    assert mixed > 0.4  # with images of other classes, though neighbours are of one
    if names == ["cutmix"]:
        assert whole.all()
    elif names == ["mixup", "cutmix"]:
        assert 0 < whole.float().mean() < 1


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0, 0.1])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_shares_is_that_of_labels_where_they_are_of_one_class(weights, smoothing):
    loss = loss_of("classification", batches(label_smoothing=smoothing), weights)
    logits, labels = torch.randn(8, 4), torch.tensor([0, 1, 2, 3, 3, 2, 1, 1])
    shares = torch.nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(loss(logits, shares), loss(logits, labels))


def test_the_loss_of_shares_is_the_sum_of_the_losses_of_their_labels():
    loss = loss_of("classification", batches(), None)
    logits = torch.tensor([[1.0, 2.0, -1.0, 0.0]])
    found = loss(logits, torch.tensor([[0.3, 0.0, 0.7, 0.0]]))
    one, other = (loss(logits, torch.tensor([label])) for label in (0, 2))
    torch.testing.assert_close(found, 0.3 * one + 0.7 * other)


# --------------------------------------------------------------------------------------------------
# where it is used


def learner(name="a", **settings):
    train, validation, header = tiny_task(name, samples=16)
    own = build(BackboneNetwork(backbone="resnet_small"), "classification", 3, 0)
    settings = {"batch_size": 8} | settings
    return TaskLearner(own, train, validation, header, batches(**settings), CPU)


def _plain(which):
    return which


def _distilled(which):
    return distilled(which, which, which.network.state_dict())


def _lwf(which):
    before = Before(finetuned(unlearned(), tiny_task("before"))[0], {}, 0)
    return LwF(type="lwf").begin([which], which.network.state_dict(), before).learner


def _ewc(which):
    state = which.network.state_dict()
    memory = {name: torch.ones_like(value) for name, value in which.network.named_parameters()}
    return EWC(type="ewc").begin([which], state, Before(None, memory, 0)).learner


def _joint(which):
    return JointLearner((which,), ())


@pytest.mark.parametrize("of", [_plain, _distilled, _lwf, _ewc, _joint])
def test_every_training_sees_what_is_mixed_and_moved(of):
    """Its loss depends on the augmentation, and takes shares of classes."""

    def losses(augmentation, **settings):
        which = of(learner(augmentation=augmentation, **settings))
        return [float(loss.detach()) for step in which.losses(1, 0) for loss in step]

    plain = losses([])
    for names in (["rotation"], ["mixup", "cutmix"]):
        found = losses(names)
        assert all(map(math.isfinite, found))
        assert found != plain
        assert found == losses(names)
    weighted = losses(["mixup"], class_weights="balanced", label_smoothing=0.1)
    assert np.isfinite(weighted).all()
