"""Exported tasks: what is removed makes no difference, and what is written computes the same."""

import json
import logging

import numpy as np
import pytest
import torch
from torch import nn

from acll.data.batches import normalised
from acll.errors import UserError
from acll.networks.build import TaskNetwork, build
from acll.networks.channels import ChannelGraph
from acll.networks.partition import partition
from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.packing import packed_file
from acll.packing.load import network_of
from acll.packing.ownership import PackingError, task_state_dict
from acll.packing.prune import released
from acll.serving.compact import compacted
from acll.serving.export import _quantise, export_task
from acll.training.evaluate import evaluated
from acll.training.metrics import score
from conftest import batches, fit_config, learn, states_equal, tiny_packed, tiny_task

CPU = torch.device("cpu")
SMALL = BackboneNetwork(backbone="resnet_small")
UNET = DecoderNetwork(decoder="unet", encoder="resnet_small")
NETWORKS = {
    **{
        name: BackboneNetwork(backbone=name)
        for name in (
            "resnet_small",
            "lenet",
            "resnet18",
            "vgg16_bn",
            "densenet121",
            "mobilenet_v3_small",
            "efficientnet_b0",
            "convnext_tiny",
            "swin_t",
            "resnext50_32x4d",
            "regnet_y_400mf",
        )
    },
    **{
        name: DecoderNetwork(decoder=name, encoder="resnet18")
        for name in (
            "unet",
            "unetplusplus",
            "manet",
            "linknet",
            "fpn",
            "pspnet",
            "deeplabv3",
            "deeplabv3plus",
            "upernet",
            "segformer",
        )
    },
}
# normalisations that mix channels, or convolutions in groups, end the search; LeNet has no
# normalisation to be silent
LITTLE = {"convnext_tiny", "swin_t", "resnext50_32x4d", "regnet_y_400mf", "lenet"}


@torch.no_grad()
def with_silent_filters(network: nn.Module, images: torch.Tensor, share: float = 0.5) -> nn.Module:
    """Statistics of some training, and the filters of so many output channels set to zero: some
    then give 0, others a constant."""
    generator = torch.Generator().manual_seed(0)

    def flags(count: int, part: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) < part

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                value.copy_(torch.rand(value.shape, generator=generator) - 0.3)
            module.running_var.copy_(
                torch.rand(module.running_var.shape, generator=generator) + 0.5
            )
    for weight, norm in ChannelGraph(network, images).layers.items():
        if norm is None:
            continue
        filters = network.get_parameter(weight)
        gone = flags(len(filters), share)
        filters[gone] = 0
        silent = gone & flags(len(gone), 0.7)
        network.get_submodule(norm).bias[silent] = 0
        network.get_submodule(norm).running_mean[silent] = 0
    return network.eval()


# the largest ones take seconds each, and others are much like one that is tried
SELDOM = (
    "vgg16_bn", "densenet121", "resnext50_32x4d", "regnet_y_400mf", "efficientnet_b0", "swin_t",
    "convnext_tiny", "unetplusplus", "manet", "linknet", "deeplabv3", "deeplabv3plus", "upernet",
    "fpn",
)  # fmt: skip
ONE_OF_EACH = ("resnet18", "mobilenet_v3_small", "unet", "fpn", "segformer")
TRIED = [pytest.param(name, marks=pytest.mark.slow if name in SELDOM else []) for name in NETWORKS]


@pytest.mark.parametrize("name", TRIED)
def test_folding_and_removing_change_no_output(name):
    spec = NETWORKS[name]
    kind, size = (
        ("classification", 32) if isinstance(spec, BackboneNetwork) else ("segmentation", 64)
    )
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    network = with_silent_filters(build(spec, kind, 5, 0, pretrained=False), images)
    small = compacted(network, images)
    other = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network(other)
        assert float((small.network(other) - expected).abs().max()) <= 1e-5 * max(
            1.0, float(expected.abs().max())
        )
    before, after = small.weights
    assert after < 0.9 * before or name in LITTLE
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.network.modules())


def test_what_always_gives_a_constant_is_removed_only_where_nothing_pads():
    """1 → 2 → 1 channels; the second channel in the middle is always relu(0.5)."""
    for padding, left in ((0, 1), (1, 2)):
        network = nn.Sequential(
            nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=padding)
        ).eval()
        with torch.no_grad():
            network[0].weight[1] = 0
            network[0].bias[1] = 0.5
        images = torch.randn(2, 1, 6, 6)
        small = compacted(network, images)
        assert small.channels == (3, left + 1)
        with torch.no_grad():
            assert torch.allclose(small.network(images), network(images), atol=1e-6)


def test_channels_that_nothing_reads_are_removed_and_so_is_what_only_they_needed():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)
    ).eval()
    with torch.no_grad():
        network[4].weight[:, 1:] = 0  # the last layer reads the first of three channels,
        network[2].weight[0, 2:] = 0  # which needs the first two of four
    small = compacted(network, torch.randn(2, 1, 4, 4))
    assert small.channels == (9, 2 + 1 + 2)
    assert small.weights == (4 + 12 + 6, 2 + 2 + 2)


def test_both_sides_of_a_sum_keep_a_channel_that_one_needs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.last = (
                nn.Conv2d(1, 3, 1),
                nn.Conv2d(1, 3, 1),
                nn.Conv2d(3, 1, 1),
            )

        def forward(self, images):
            return self.last((self.left(images) + self.right(images)).relu())

    network = Sum().eval()
    with torch.no_grad():
        for layer, silent in ((network.left, (0, 1)), (network.right, (1, 2))):
            layer.weight[list(silent)] = 0
            layer.bias[list(silent)] = 0
    images = torch.randn(2, 1, 4, 4)
    small = compacted(network, images)
    assert small.channels == (7, 2 + 2 + 1)  # only the second is silent on both sides
    with torch.no_grad():
        assert torch.allclose(small.network(images), network(images), atol=1e-6)


class Odd(nn.Module):
    """Two silent channels of four, and something between them and who reads them."""

    def __init__(self, between):
        super().__init__()
        self.first, self.other, self.last = (
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 3, 1),
        )
        self.conv2d_1 = nn.Conv2d(4, 4, 3, padding="same", groups=2)
        self.norm, self.free = nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)
        self.between = between
        with torch.no_grad():
            for layer in (self.first, self.other):
                layer.weight[:2] = 0
                layer.bias[:2] = torch.tensor([0.0, 0.7])
            self.last.weight[:, 3] = 0

    def forward(self, images):
        return self.last(self.between(self, self.first(images)))


def painted(own, maps):
    maps[:, 0] = 5
    return maps


def through_a_view(own, maps):
    maps.flatten(1).sub_(0.3).relu_()
    return maps


def on_a_part(own, maps):
    maps[:, :2].add_(0.4)
    return maps


def read_before(own, maps):
    later = torch.dropout(maps, 0.5, False)  # which is the same tensor
    return maps + later.add_(1.0)


ODD = {
    "added by a factor": lambda own, maps: torch.add(maps, own.other(maps), alpha=3),
    "added to a number": lambda own, maps: maps + 1.5,
    "added to one channel": lambda own, maps: maps + maps[:, 3:4],
    "scaled by one channel": lambda own, maps: maps * maps[:, 1:2].sigmoid(),
    "squeezed and excited": lambda own, maps: maps * maps.mean((2, 3), keepdim=True).sigmoid(),
    "computed bias": lambda own, maps: nn.functional.conv2d(
        maps, own.other.weight, own.other.bias * 3
    ),
    "computed weight": lambda own, maps: nn.functional.conv2d(
        maps, own.other.weight - own.other.weight.mean()
    ),
    "computed normalisation": lambda own, maps: nn.functional.batch_norm(
        maps,
        own.norm.running_mean,
        own.norm.running_var,
        own.norm.weight.abs() + 1,
        own.norm.bias * 2 + 1,
    ),
    "normalised by the batch": lambda own, maps: own.free(maps),
    "groups of two, padded to the same size": lambda own, maps: own.conv2d_1(maps),
    "painted in place": painted,
    "changed through a view": through_a_view,
    "changed in part": on_a_part,
    "read before and after a change": read_before,
    "flattened otherwise": lambda own, maps: (
        maps.flatten(0, 2).unflatten(0, (-1, 4, 4)).contiguous()
    ),
    "pooled with its border": lambda own, maps: nn.functional.avg_pool2d(maps, 3, 1, 1),
    "concatenated with itself": lambda own, maps: torch.cat([maps[:, :2], maps, maps], 1)[:, 2:6],
    "reshaped": lambda own, maps: maps.reshape(-1, 2, 2, 4, 4).transpose(1, 2).reshape(-1, 4, 4, 4),
}


@pytest.mark.parametrize("between", ODD.values(), ids=ODD.keys())
def test_what_is_not_understood_is_left_as_it_is(between):
    network, images = (
        Odd(between).eval(),
        torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0)),
    )
    with torch.no_grad():
        expected = network(images)
        assert torch.allclose(compacted(network, images).network(images), expected, atol=1e-5)


def test_a_network_of_which_nothing_is_left_still_computes_its_biases():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
        network[2].bias.copy_(torch.tensor([1.0, -2.0]))
    small = compacted(network, torch.randn(2, 1, 4, 4))
    with torch.no_grad():
        assert torch.equal(small.network(torch.randn(3, 1, 4, 4)), network(torch.randn(3, 1, 4, 4)))


# --------------------------------------------------------------------------------------------------
# pruning by channel


class Biased(nn.Sequential):
    """Convolutions with biases before their normalisations, as in VGG."""

    def __init__(self):
        layers = []
        for before, after in ((3, 8), (8, 8)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def biased(kind, classes, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TaskNetwork(Biased(), None, nn.Linear(8, classes))


def small_resnet(kind, classes, seed):
    return build(SMALL, kind, classes, seed, pretrained=False)


@pytest.mark.parametrize("make", [small_resnet, biased])
def test_channels_released_as_a_whole_stay_silent_however_long_they_are_trained_and_can_be_removed(
    make,
):
    made = []

    def factory(kind, classes, seed):
        network = make(kind, classes, seed)
        made.append(network)
        return network

    task = tiny_task("a", size=16, samples=12)
    dense = learn(None, factory, task, 0.0)
    images = torch.randn(2, 3, 16, 16)
    graph = ChannelGraph(made[0], images)
    layers = graph.layers
    norms = {weight: norm for weight, norm in layers.items() if norm is not None}
    assert len(norms) == (12 if make is small_resnet else 2)
    assert set(layers) - set(norms) == {"head.weight" if make is biased else "head.2.weight"}
    assert all(norm.split(".")[:-1] == weight.split(".")[:-2] for weight, norm in norms.items())
    state = task_state_dict(dense, "a")
    keep = {name: torch.ones_like(owner, dtype=torch.bool) for name, owner in dense.owner.items()}
    for name in norms:
        keep[name][::2] = False  # every other filter
    free = {name: torch.ones_like(mask) for name, mask in keep.items()}
    start = released(state, free, keep, graph)
    from acll.training.learner import TaskLearner
    from acll.training.loop import fit

    train, validation, header = task
    network = make("classification", 3, 0)
    learner = TaskLearner(network, train, validation, header, batches(batch_size=4), CPU)
    after = fit(learner, start, fit_config(3, 0.01, 1, weight_decay=0.1), keep).state
    for name, norm in norms.items():
        if ".first." in name or "stem" in name or make is biased:  # a ReLU comes next
            assert f"{name[:-6]}bias" not in after or bool(
                (after[f"{name[:-6]}bias"][::2] == 0).all()
            )
            assert bool((after[f"{norm}.bias"][::2] == 0).all())
            assert bool((after[f"{norm}.running_mean"][::2] == 0).all())
    assert not states_equal(after, start)
    network.load_state_dict(after)
    small = compacted(network.eval(), images)
    assert small.weights[1] < 0.6 * small.weights[0]
    with torch.no_grad():
        assert torch.allclose(small.network(images), network(images), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ONE_OF_EACH else pytest.mark.slow)
        for name in NETWORKS
    ],
)
def test_weights_that_are_said_to_read_silent_channels_alone_make_no_difference(name):
    spec = NETWORKS[name]
    kind, size = (
        ("classification", 32) if isinstance(spec, BackboneNetwork) else ("segmentation", 64)
    )
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    network = with_silent_filters(build(spec, kind, 5, 0, pretrained=False), images, share=0.0)
    graph, state = ChannelGraph(network, images), network.state_dict()
    generator = torch.Generator().manual_seed(2)
    shared = [weight for weight in partition(network).shared if weight in graph.layers]
    silent = {
        weight: torch.rand(len(state[weight]), generator=generator) < 0.4 for weight in shared
    }
    free = {weight: torch.ones_like(state[weight], dtype=torch.bool) for weight in shared}
    keep = {
        weight: ~silent[weight].view(-1, *[1] * (mask.dim() - 1)) & mask
        for weight, mask in free.items()
    }
    idle = graph.idle(silent)
    again = ChannelGraph(
        with_silent_filters(build(spec, kind, 5, 1, pretrained=False), images), images
    )
    assert again.layers == graph.layers  # whatever the weights
    assert all(torch.equal(flags, idle[weight]) for weight, flags in again.idle(silent).items())
    assert sum(int(flags.sum()) for flags in idle.values()) > 0
    assert not any(bool(flags.any()) for flags in graph.idle({}).values())
    start = released(state, free, keep, graph)
    other = start | {
        weight: torch.where(
            flags.view(*flags.shape, *[1] * (start[weight].dim() - 2)), 7.0, start[weight]
        )
        for weight, flags in idle.items()
    }
    outputs = []
    for each in (start, other):
        network.load_state_dict(each)
        with torch.no_grad():
            outputs.append(network(images))
    assert torch.equal(*outputs)


class Shared(nn.Module):
    """Two convolutions with one normalisation; and one with a normalisation of what has been added
    to it in place."""

    def __init__(self, in_place):
        super().__init__()
        self.one, self.other, self.last = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norm, self.in_place = nn.BatchNorm2d(3), in_place

    def forward(self, images):
        if self.in_place:
            features = self.one(images)
            features += images
            return self.last(self.norm(features))
        return self.last(self.norm(self.one(images)) - self.norm(self.other(images)))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_normalisation_that_reads_more_than_a_convolution_is_not_taken_for_its_own(in_place):
    graph = ChannelGraph(Shared(in_place), torch.ones(1, 3, 4, 4))
    assert set(graph.layers.values()) == {None}
    idle = graph.idle({"one.weight": torch.tensor([True, False, False])})
    assert not any(bool(flags.any()) for flags in idle.values())


@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_by_channel_all_that_a_task_keeps_is_left_when_channels_are_removed(ratio):
    packed = learn(None, biased, tiny_task("a", size=16, samples=12), ratio, scope="channel")
    owned = sum(int((owner > 0).sum()) for owner in packed.owner.values())
    total = sum(owner.numel() for owner in packed.owner.values())
    assert 0 < owned <= (1 - ratio) * total
    network = biased("classification", 3, 0)
    network.load_state_dict(task_state_dict(packed, "a"))
    small = compacted(network.eval(), torch.randn(2, 3, 16, 16))
    channels = int((packed.owner["encoder.3.weight"] > 0).flatten(1).any(dim=1).sum())
    assert small.weights[1] == owned + 3 * channels  # those of the head


# --------------------------------------------------------------------------------------------------
# files


@pytest.fixture(scope="module", params=["classification", "segmentation"])
def packed(request, tmp_path_factory):
    """A packed network of two tasks, the second of this kind, and images of that."""
    path = tmp_path_factory.mktemp("packed") / "network.safetensors"
    spec = SMALL if request.param == "classification" else UNET
    packed_file.write_packed(
        path, tiny_packed("a", "b", spec=spec, kind=request.param, size=16, samples=8)
    )
    return packed_file.open_packed(path), tiny_task("b", request.param, size=16, samples=8)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".safetensors"])
def test_what_is_exported_computes_the_same_and_scores_the_same(packed, tmp_path, suffix):
    opened, (images, _, header) = packed
    exported = export_task(opened, "b", tmp_path / f"b{suffix}", "float32", images)
    network = network_of(opened.without_weights(), opened.record("b"), opened.state("b"))
    with torch.no_grad():
        largest = float(network(normalised(images.images, header, CPU)).abs().max())
    assert exported.largest == pytest.approx(largest, rel=1e-4)
    # what float32 leaves of a sum goes with its size
    assert exported.difference <= {".onnx": 1e-4, ".pt2": 1e-5, ".safetensors": 0.0}[suffix] * max(
        1.0, largest
    )
    assert exported.scores[0] == exported.scores[1]
    assert exported.bytes == (tmp_path / f"b{suffix}").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [f"b{suffix}"]
    # and the score is that of the network in the file
    assert exported.scores[0] == pytest.approx(
        score(evaluated(network, images, header, CPU)), abs=1e-6
    )


def test_an_onnx_file_takes_any_number_of_images_and_says_what_they_are(packed, tmp_path):
    import onnx
    import onnxruntime

    opened, (_, _, header) = packed
    export_task(opened, "b", tmp_path / "b.onnx", "float32", None)
    session = onnxruntime.InferenceSession(tmp_path / "b.onnx")
    assert session.get_inputs()[0].shape == ["N", 3, 16, 16]
    assert session.get_outputs()[0].shape[0] == "N"
    for count in (1, 7):
        (logits,) = session.run(
            None, {"images": np.random.rand(count, 3, 16, 16).astype(np.float32)}
        )
        assert logits.shape[:2] == (count, 3)
    known = {entry.key: entry.value for entry in onnx.load(tmp_path / "b.onnx").metadata_props}
    assert json.loads(known["classes"]) == list(header.classes)
    assert (known["task"], known["kind"]) == ("b", header.kind)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_half_precision_that_overflows_is_refused(tmp_path, suffix):
    packed = tiny_packed("a", spec=SMALL, size=16)
    packed.private["a"]["head.2.bias"][0] = 1e6
    packed_file.write_packed(tmp_path / "network.safetensors", packed)
    opened = packed_file.open_packed(tmp_path / "network.safetensors")
    export_task(opened, "a", tmp_path / f"whole{suffix}", "float32", None)
    with pytest.raises(
        UserError, match="values that are not finite; half precision may be too little for it"
    ):
        export_task(opened, "a", tmp_path / f"half{suffix}", "float16", None)
    assert not (tmp_path / f"half{suffix}").exists()


def test_weights_for_which_an_onnx_file_has_no_room_are_refused(packed, tmp_path, monkeypatch):
    monkeypatch.setattr("acll.serving.export._MOST_ONNX", 10**5)
    with pytest.raises(
        UserError, match=r"b has [\d,]+ bytes of weights, and an ONNX file holds 2 GB: write \.pt2"
    ):
        export_task(packed[0], "b", tmp_path / "b.onnx", "float32", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("packed", "suffix", "precision", "share"),
    [
        ("classification", ".pt2", "float16", 0.6),
        pytest.param("classification", ".onnx", "int8", 0.5, marks=pytest.mark.slow),
        pytest.param("segmentation", ".onnx", "int8", 0.5, marks=pytest.mark.slow),
        pytest.param("segmentation", ".onnx", "float16", 0.6, marks=pytest.mark.slow),
    ],
    indirect=["packed"],
)
def test_lower_precision_takes_less_room_and_says_what_it_costs(
    packed, tmp_path, suffix, precision, share
):
    opened, (images, _, _) = packed
    whole = export_task(opened, "b", tmp_path / f"whole{suffix}", "float32", images)
    less = export_task(opened, "b", tmp_path / f"less{suffix}", precision, images)
    assert less.bytes < share * whole.bytes
    assert less.difference > 0
    assert less.scores[0] == whole.scores[0]
    assert 0 <= less.scores[1] <= 1


@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO, logging.ERROR])
def test_what_a_program_has_silenced_of_its_logs_stays_so(tmp_path, monkeypatch, level):
    seen = []

    def quantize(*_, **__):
        seen.append(logging.root.manager.disable)

    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", quantize)
    try:
        logging.disable(level)
        _quantise(tmp_path / "a.onnx")
        assert logging.root.manager.disable == level
    finally:
        logging.disable(logging.NOTSET)
    assert seen == [max(level, logging.WARNING)]


def test_a_file_of_one_task_is_that_task_and_smaller(packed, tmp_path):
    opened, _ = packed
    export_task(opened, "b", tmp_path / "b.safetensors", "float32", None)
    own = packed_file.open_packed(tmp_path / "b.safetensors")
    assert [record.name for record in own.header.tasks] == ["b"]
    assert states_equal(own.state("b"), opened.state("b"))
    assert (tmp_path / "b.safetensors").stat().st_size < opened.tensor_file.path.stat().st_size


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        (
            "b.txt",
            "float32",
            r"b\.txt: the ending .* must be one of \.onnx, \.pt2, \.safetensors",
        ),
        ("b.pt2", "int8", r"b\.pt2: int8 can be written to \.onnx only"),
        ("b.safetensors", "float16", r"float16 can be written to \.onnx or \.pt2 only"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    packed, tmp_path, name, precision, message
):
    with pytest.raises(UserError, match=message):
        export_task(packed[0], "b", tmp_path / name, precision, None)
    with pytest.raises(PackingError, match="has not learned 'z'"):
        export_task(packed[0], "z", tmp_path / "z.onnx", "float32", None)
    assert not list(tmp_path.iterdir())
