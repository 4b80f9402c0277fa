"""Packed files that are damaged, or that lie: a clear error each, and never a crash or a memory
that runs full."""

import json
import resource
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from acll.cli.main import main
from acll.packing import packed_file, tensor_file
from acll.packing.bits import pack_set, unpack_map
from acll.packing.ownership import PackingError
from acll.serving.export import EXPORT_SUFFIXES, export_task
from acll.serving.model import PackedNetwork
from conftest import tiny_packed


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The file of a packed network of two tasks; the second does not read all of the first."""
    path = tmp_path_factory.mktemp("sound") / "network.safetensors"
    packed = tiny_packed("a", "b", left_out=0.3)
    packed_file.write_packed(path, packed)
    return path


def peak() -> int:
    """The most memory that this process has had since `start_of_peak`, in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def start_of_peak() -> int:
    """Forget what memory earlier tests took; what the process has now, in kilobytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def read_all(path) -> None:
    """Whatever a person could ask of a file."""
    opened = packed_file.open_packed(path)
    packed = PackedNetwork(opened)
    for task in packed.tasks:
        opened.state(task.name)
        packed.predict(task.name, np.zeros((5, 7), np.uint8))
    opened.whole()


def test_a_sound_file_is_read(sound):
    read_all(sound)


def forged(sound, tmp_path, change):
    """The file with other content, its digests made to agree."""
    tensors, header = (
        load_file(sound),
        json.loads(json.dumps(tensor_file.open_tensors(sound).header)),
    )
    header.pop("digests")
    header.pop("digest")
    change(tensors, header)
    tensor_file.save_tensors(tmp_path / "forged.safetensors", tensors, header)
    return tmp_path / "forged.safetensors"


def set_at(*way, value):
    def change(tensors, header):
        place = header
        for key in way[:-1]:
            place = place[key]
        place[way[-1]] = value

    return change


def replaced(name, make):
    def change(tensors, header):
        key = next(key for key in sorted(tensors) if key.startswith(name))
        tensors[key] = make(tensors[key])

    return change


def dropped(name):
    return lambda tensors, header: tensors.pop(
        next(key for key in sorted(tensors) if key.startswith(name))
    )


def private_code_cut(tensors, header):
    """Let the private state of the first task have one byte of code, with its header."""
    left = header["private"]["code_bytes"]["a"] - 1
    header["private"]["code_bytes"]["a"] = 1
    tensors["private/a"] = tensors["private/a"][left:]


def twice(tensors, header):
    header["layers"].append(deepcopy(header["layers"][0]))


def nested(depth):
    return [nested(depth - 1)] if depth else []


def own_left_out(tensors, header):
    """Let the second task leave out weights of its own in place of those of the first."""
    codes = []
    for layer in header["layers"]:
        size, owner = int(np.prod(layer["shape"])), tensors[f"owner/{layer['name']}"].numpy()
        of_second = dict(unpack_map(owner, layer["owned"], size, 2))[2]
        places = of_second[: layer["unread"][1]]
        layer["unread"][1] = len(places)
        codes.append(pack_set(places, size))
    tensors["unread/2"] = torch.from_numpy(np.concatenate(codes))


CLAIMED = {"shape": [2**27], "owned": [0, 0], "unread": [0, 0]}  # a layer of free weights
LIES = {
    "version": (set_at("format", value=99), "format 99 is not known here"),
    "version as text": (set_at("format", value="3"), "format 3 is not known here"),
    "no version": (lambda tensors, header: header.pop("format"), "no packed network"),
    "no tasks": (set_at("tasks", value=None), "tasks"),
    "task of another form": (set_at("tasks", 0, value=7), "tasks.0"),
    "position of no task": (set_at("tasks", 0, "classes", value=3), r"tasks\.0\.classes"),
    "a thousand tasks": (
        lambda tensors, header: header.update(tasks=header["tasks"] * 500),
        "tasks",
    ),
    "a task twice": (set_at("tasks", 1, "name", value="a"), "stands there twice"),
    "a task with a path": (set_at("tasks", 1, "name", value="../../b"), "the name of a task"),
    "huge shape": (
        set_at("layers", 0, "shape", value=[2**20, 2**20]),
        "it has a tensor of more than",
    ),
    "huge shape of one owner": (
        lambda tensors, header: header["layers"][0].update(shape=[2**40], owned=[0, 0]),
        "less than or equal",
    ),
    "many large shapes": (
        lambda tensors, header: header["layers"].extend(
            CLAIMED | {"name": f"x{n}"} for n in range(9)
        ),
        "more than any network",
    ),
    "many dimensions": (set_at("layers", 0, "shape", value=[1] * 1000), "shape"),
    "negative shape": (set_at("layers", 0, "shape", value=[-1, 2]), "shape"),
    "shape of no numbers": (set_at("layers", 0, "shape", value=["x"]), "shape"),
    "other shape": (
        set_at("layers", 0, "shape", value=[3, 3]),
        "own more weights than there are|cannot hold",
    ),
    "a layer twice": (twice, "stands there twice"),
    "more owned than there is": (
        set_at("layers", 0, "owned", value=[10**6, 0]),
        "own more weights than there are",
    ),
    "other counts": (
        lambda tensors, header: header["layers"][0].update(owned=[1, 1], unread=[0, 1]),
        "does not agree with the header|cannot hold",
    ),
    "negative counts": (set_at("layers", 0, "owned", value=[-5, 5]), "owned"),
    "counts of other tasks": (
        set_at("layers", 0, "owned", value=[1]),
        "own more weights than there are",
    ),
    "owner out of range": (
        replaced("owner/", lambda code: code | 255),
        "does not agree with the header|has integers that are not below",
    ),
    "owner map cut": (replaced("owner/", lambda bits: bits[:-1]), "cannot hold"),
    "owner map of floats": (replaced("owner/", lambda bits: bits.float()), "not of the form"),
    "owner map missing": (dropped("owner/"), "it lacks owner/"),
    "weights cut": (replaced("weights/", lambda values: values[:-1]), "does not have as many"),
    "weights of floats": (replaced("weights/", lambda code: code.float()), "not of the form"),
    "weights that list no exponents": (
        replaced("weights/", lambda code: torch.full_like(code, 255)),
        "its exponents are not those that it lists",
    ),
    "other bytes of weights": (
        set_at("weight_bytes", 0, value=3),
        "does not have as many bytes as the header says",
    ),
    "bytes of the weights of other tasks": (
        set_at("weight_bytes", value=[3]),
        "how many bytes the weights of each task have",
    ),
    "weights of two dimensions": (
        replaced("weights/", lambda values: values[None]),
        "not of the form",
    ),
    "weights missing": (dropped("weights/2"), "it lacks weights/2"),
    "more left out than earlier tasks own": (
        set_at("layers", 0, "unread", value=[0, 10**6]),
        "leaves out more weights than earlier ones own",
    ),
    "a first task that leaves out": (
        set_at("layers", 0, "unread", value=[1, 0]),
        "leaves out more weights than earlier ones own",
    ),
    "left out by other tasks": (
        set_at("layers", 0, "unread", value=[0]),
        "leaves out more weights than earlier ones own",
    ),
    "left out by nobody": (
        set_at("layers", 0, "unread", value=[0, -1]),
        "greater than or equal",
    ),
    "fewer left out": (
        set_at("layers", 0, "unread", value=[0, 1]),
        "does not have as many bytes",
    ),
    "left out missing": (dropped("unread/"), "it lacks unread/2"),
    "left out cut": (replaced("unread/", lambda code: code[:-1]), "cannot hold"),
    "left out longer": (
        replaced("unread/", lambda code: torch.cat([code, code])),
        "does not have as many bytes",
    ),
    "left out of floats": (replaced("unread/", lambda code: code.float()), "not of the form"),
    "other weights left out": (
        replaced("unread/", lambda code: code.flip(0)),
        "does not agree with the header|names weights that no earlier task owns",
    ),
    "weights left out that the task owns": (
        own_left_out,
        "names weights that no earlier task owns",
    ),
    "private state cut": (
        replaced("private/", lambda values: values[:10]),
        "not what its layout says",
    ),
    "private state with more behind it": (
        replaced("private/", lambda values: torch.cat([values, values])),
        "not what its layout says",
    ),
    "private values of another length": (
        lambda tensors, header: header["private"]["code_bytes"].update(a=1),
        "not what its layout says",
    ),
    "private values of a negative length": (
        lambda tensors, header: header["private"]["code_bytes"].update(a=-1),
        "private.code_bytes.a",
    ),
    "private values of no known length": (
        lambda tensors, header: header["private"]["code_bytes"].pop("a"),
        "whose private state it has",
    ),
    "private values that are no code": (
        replaced("private/", lambda values: torch.full_like(values, 255)),
        "the private state of a: its exponents are not those that it lists",
    ),
    "private values without a code": (
        private_code_cut,
        "the private state of a: .* bytes cannot hold",
    ),
    "a part that no network has": (
        lambda tensors, header: tensors.update(stray=torch.zeros(9, dtype=torch.uint8)),
        "it has stray, which is no part",
    ),
    "a million faults of owners": (set_at("layers", 0, "owned", value=[-1] * 10**6), "owned"),
    "a million faults of private tensors": (
        lambda tensors, header: header["private"].update(tensors=[{}] * 10**6),
        "private.tensors",
    ),
    "a hundred thousand faults of tasks": (
        lambda tensors, header: header["private"].update(
            of_tasks={str(number): 0 for number in range(10**5)}
        ),
        "private.of_tasks",
    ),
    "a million faults of classes": (set_at("tasks", 0, "classes", value=[1] * 10**6), "classes"),
    "private state missing": (dropped("private/b"), "it lacks private/b"),
    "private layout of others": (
        lambda tensors, header: header["private"]["of_tasks"].pop("a"),
        "whose private state it has",
    ),
    "private state of no type": (
        lambda tensors, header: header["private"]["tensors"][0].update(dtype="object"),
        "private.tensors.0.dtype",
    ),
    "private state that is not described": (
        lambda tensors, header: header["private"]["of_tasks"]["a"].append(2**20),
        "is not described",
    ),
    "no private state is described": (
        lambda tensors, header: header["private"].update(tensors=[], of_tasks={"a": [0], "b": [0]}),
        "is not described",
    ),
    "a private tensor without end": (
        lambda tensors, header: header["private"]["of_tasks"]["a"].extend([0] * 2**20),
        "private.of_tasks.a",
    ),
    "private tensors without end": (
        lambda tensors, header: header["private"].update(
            of_tasks={"a": [0] * 2**17, "b": [0] * (2**17 + 1)}
        ),
        "more private tensors than any network",
    ),
    "a private tensor twice": (
        lambda tensors, header: header["private"]["of_tasks"]["a"].append(0),
        "two private tensors of one name",
    ),
    "a private tensor that is shared": (
        lambda tensors, header: header["private"]["tensors"][0].update(
            name=header["layers"][0]["name"]
        ),
        "is shared and private",
    ),
    "private state larger than the file": (
        lambda tensors, header: header["private"]["tensors"][0].update(shape=[2**50]),
        "less than or equal",
    ),
    "a layer of another name": (set_at("layers", 0, "name", value="x"), "which is no part"),
    "private state of another name": (
        lambda tensors, header: header["private"]["tensors"][0].update(name="head.x"),
        "does not fit",
    ),
    "other classes than its head has": (
        set_at("tasks", 0, "classes", value=["x", "y"]),
        "does not fit",
    ),
    "no such network": (set_at("network", value={"backbone": "zebra"}), "it cannot be built"),
    "no network": (set_at("network", value={}), "it cannot be built"),
    "a network from elsewhere": (
        set_at("network", value={"decoder": "unet", "encoder": "tu-hf-hub:somebody/model"}),
        "it cannot be built",
    ),
    "images of no size": (set_at("tasks", 0, "image_size", value=[0, 0]), "image_size"),
    "images of any size": (set_at("tasks", 0, "image_size", value=[2**30, 4]), "image_size"),
    "pixels of no type": (set_at("tasks", 0, "pixel", value="object"), "cannot be normalised"),
    "a metric of another kind": (
        set_at("tasks", 0, "metric", value="mean_iou"),
        "is no metric of classification",
    ),
    "a metric that is none": (set_at("tasks", 0, "metric", value="a | b"), "metric"),
    "no deviation": (set_at("tasks", 0, "std", value=[0.0, 0.0, 0.0]), "cannot be normalised"),
    "mean of other channels": (
        set_at("tasks", 0, "mean", value=[0.5, 0.5]),
        "are not those of channels",
    ),
    "overlap of whole tiles": (set_at("tasks", 0, "tile_overlap", value=4), "tile_overlap"),
    "temperature of 0": (set_at("tasks", 0, "temperature", value=0.0), "greater than"),
    "order of no seed": (set_at("tasks", 0, "permute", value=-1), "cannot be moved"),
    "ratio as text": (
        set_at("tasks", 0, "choice", value={"ratio": "x"}),
        "a ratio that is no share",
    ),
    "ratio of four hundred digits": (
        set_at("tasks", 0, "choice", "ratio", value=10**400),
        "a ratio that is no share",
    ),
    "score that is no number": (
        set_at("tasks", 0, "validation_score", value=float("nan")),
        "a number that is not fin",
    ),
    "a shape that is too large but for a side of 0": (
        lambda tensors, header: header["layers"].append(
            {"name": "x", "shape": [2**28] * 7 + [0], "owned": [0, 0], "unread": [0, 0]}
        ),
        "it has a tensor of more than",
    ),
    "no layers": (
        lambda tensors, header: (
            header.update(layers=[]),
            [tensors.pop(key) for key in [*tensors] if "owner" in key],
        ),
        "it has no weights",
    ),
    "thousands of layers": (
        lambda tensors, header: header["layers"].extend(
            {"name": f"x{n}", "shape": [0], "owned": [0, 0], "unread": [0, 0]}
            for n in range(100_000)
        ),
        "at most 5000 items",
    ),
    "images larger than memory": (
        set_at("tasks", 0, "image_size", value=[2**14, 2**14]),
        "pixels in all at most",
    ),
    "images of a million channels": (
        lambda tensors, header: header["tasks"][0].update(mean=[0.5] * 10**6, std=[0.3] * 10**6),
        "channels",
    ),
    "images of other channels": (
        lambda tensors, header: header["tasks"][0].update(mean=[0.5] * 5, std=[0.3] * 5),
        "cannot take the images",
    ),
    "tiles that hardly move": (
        lambda tensors, header: header["tasks"][0].update(image_size=[32, 32], tile_overlap=31),
        "tile_overlap 31",
    ),
    "tiles of a pixel": (
        lambda tensors, header: header["tasks"][0].update(image_size=[1, 1], tile_overlap=0),
        "tile_overlap 0",
    ),
    "more classes than a mask can hold": (
        lambda tensors, header: header["tasks"][0].update(kind="segmentation", classes=["x"] * 256),
        "256 classes",
    ),
    "a class with terminal escapes": (
        set_at("tasks", 0, "classes", 0, value="\x1b[2J"),
        "has control characters",
    ),
    "a class of two lines": (
        set_at("tasks", 0, "classes", 0, value="a\nerror: b"),
        "has control characters",
    ),
    "a method of half a letter": (set_at("method", value="\ud800"), "has control characters"),
    "a layer of ten million letters": (
        set_at("layers", 0, "name", value="x" * 10**7),
        "10,000,000 characters",
    ),
    "a task of two lines": (
        lambda tensors, header: header["private"]["of_tasks"].update({"x\nerror: y": 3}),
        r"private\.of_tasks\.x\\nerror",
    ),
    "values in each other": (
        set_at("network", "deep", value=nested(900)),
        "values in too many others",
    ),
    "choices in each other": (
        set_at("tasks", 0, "choice", value={"x": nested(900)}),
        "values in too many others",
    ),
    "a network with parts from elsewhere": (
        set_at("network", value={"backbone": "fasterrcnn_resnet50_fpn"}),
        "there is no backbone 'fasterrcnn",
    ),
    "a network of two lines": (
        set_at("network", value={"backbone": "x" * 50 + "\r"}),
        "has control characters",
    ),
    "a network of a million channels": (
        set_at("network", value={"decoder": "unet", "encoder": "mit_b0", "channels": 10**6}),
        "it cannot be built",
    ),
    "a network of huge layers": (
        set_at("network", value={"hidden": [10**9], "image_size": 4, "channels": 3}),
        "it cannot be built",
    ),
    "a network without end": (
        set_at("network", value={"hidden": [6] * 10**5, "image_size": 4, "channels": 3}),
        "it cannot be built",
    ),
    "a network for other images": (
        set_at("network", value={"hidden": [6], "image_size": 5, "channels": 3}),
        "cannot take the images",
    ),
}


@pytest.mark.parametrize(("change", "message"), LIES.values(), ids=LIES.keys())
def test_a_file_that_lies_is_refused_with_what_is_wrong_in_little_memory(
    sound, tmp_path, change, message
):
    path = forged(sound, tmp_path, change)
    before = start_of_peak()
    with pytest.raises(PackingError, match=message) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak() - before < 200_000


def test_free_weights_that_a_header_claims_ask_for_no_memory(sound, tmp_path, capsys):
    path = forged(sound, tmp_path, lambda tensors, header: header["layers"].extend(
        CLAIMED | {"name": f"x{number}"} for number in range(7)
    ))  # fmt: skip
    before = start_of_peak()
    main(["inspect", str(path)])
    assert "939,5" in capsys.readouterr().out
    with pytest.raises(PackingError, match="does not fit"):
        PackedNetwork(packed_file.open_packed(path)).network("a")
    assert peak() - before < 200_000


def test_a_decoder_that_a_header_claims_for_a_classifier_asks_for_no_memory(sound, tmp_path):
    path = forged(sound, tmp_path, lambda tensors, header: header["layers"].extend(
        CLAIMED | {"name": f"decoder.x{number}"} for number in range(7)
    ))  # fmt: skip
    before = start_of_peak()
    opened = packed_file.open_packed(path)
    PackedNetwork(opened).predict("a", np.zeros((5, 7), np.uint8))
    for suffix in EXPORT_SUFFIXES:
        export_task(opened, "a", tmp_path / f"a{suffix}", "float32", None)
    assert (tmp_path / "a.safetensors").stat().st_size < sound.stat().st_size
    assert peak() - before < 200_000


def test_a_header_that_is_no_mapping_is_refused(tmp_path):
    from safetensors.torch import save_file

    for text in ("[]", "3", "null", "{", '"x"', "[" * 100_000):
        save_file({}, tmp_path / "odd.safetensors", metadata={"acll": text})
        with pytest.raises(PackingError, match="damaged"):
            packed_file.open_packed(tmp_path / "odd.safetensors")


@pytest.mark.slow
def test_no_mutation_of_a_file_passes_or_ends_in_anything_but_a_message(sound, tmp_path):
    content = np.frombuffer(sound.read_bytes(), np.uint8)
    generator, path = np.random.default_rng(0), tmp_path / "mutated.safetensors"
    for number in range(10_000):
        path.write_bytes(_mutated(content, generator, number))
        with pytest.raises(PackingError, match=r"mutated\.safetensors"):
            read_all(path)


def _mutated(content, generator, number) -> bytes:
    """Bytes changed, cut out, doubled, or cut off; always different from what they were."""
    head = int.from_bytes(content[:8].tobytes(), "little") + 8
    place = int(generator.integers(0, head if number % 2 else len(content)))
    kind = number // 2 % 4
    if kind == 0:
        changed = content.copy()
        changed[place] ^= generator.integers(1, 256, dtype=np.uint8)
        return changed.tobytes()
    if kind == 1:
        return content[:place].tobytes()
    length = int(generator.integers(1, 64))
    if kind == 2:
        return np.delete(content, slice(place, place + length)).tobytes()
    return np.insert(content, place, content[:length]).tobytes()
