"""Miniatures of published datasets, each in its own format on disk.

The left half of an image is a level of grey that says which class it is of; the right half tells
the images of a class apart. Each class has one image in a split that the dataset gives, two where
validation has to be cut from it, three where the test has to be cut too: so that every split has
one of each class.
"""

import csv
import gzip
import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Ids = dict[str, list[str]]


def picture(label: int, number: int, side: int = 16):
    """Grey, [side, side]."""
    values = np.full((side, side), 20 + 2 * label, np.uint8)
    values[:, side // 2 :] = 40 + 20 * number
    return values


def label_of(image) -> int:
    """The class that an image [C, H, W] of these says that it is of."""
    half = np.asarray(image, float)[:, :, : image.shape[2] // 2]
    return round((half.mean() - 20) / 2)


def save(path: Path, values, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    image.save(path, **({"quality": 100} if path.suffix == ".jpg" else {}))
    return path


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def truncate(path: Path) -> Path:
    """Cut a file off in its middle."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


# --------------------------------------------------------------------------------------------------
# datasets whose samples lie in a few large files


def _arrays(name: str, classes: int, side: int, per_class: dict[str, int]):
    """Images [N, side, side] and labels [N] of each split, and their ids."""
    arrays, ids = {}, {}
    for first, (split, count) in enumerate(per_class.items()):
        samples = [
            (label, 3 * first + number) for number in range(count) for label in range(classes)
        ]
        images = np.stack([picture(label, number, side) for label, number in samples])
        arrays[split] = images, np.array([label for label, _ in samples])
        ids[split] = [f"{name}-{split}-{index:06d}" for index in range(len(samples))]
    return arrays, ids


def _idx(path: Path, values) -> None:
    """The format of MNIST: type and number of sides, each side in four bytes, the values."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(
        side.to_bytes(4, "big") for side in values.shape
    )
    write(path, head + values.astype(np.uint8).tobytes())


def mnist(
    name: str, classes: int = 10, names: str = "{}", train: str = "train", test: str = "t10k"
):
    def writer(folder: Path) -> Ids:
        arrays, ids = _arrays(name, classes, 28, {"train": 2, "test": 1})
        for split, word in (("train", train), ("test", test)):
            images, labels = arrays[split]
            _idx(folder / name / "raw" / names.format(f"{word}-images-idx3-ubyte"), images)
            _idx(folder / name / "raw" / names.format(f"{word}-labels-idx1-ubyte"), labels)
        return ids

    return writer


def svhn(folder: Path) -> Ids:
    from scipy.io import savemat

    arrays, ids = _arrays("SVHN", 10, 32, {"train": 2, "test": 1})
    for split, (images, labels) in arrays.items():
        colours = np.repeat(images[..., None], 3, axis=3).transpose(1, 2, 3, 0)
        path = folder / f"{split}_32x32.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(
            path, {"X": colours, "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        )
    return ids


def _batch(path: Path, images, labels, key: str) -> None:
    data = np.repeat(images.reshape(len(images), 1, -1), 3, axis=1).reshape(len(images), -1)
    write(
        path,
        pickle.dumps({"batch_label": path.name, key: labels.tolist(), "data": data}, protocol=2),
    )


def cifar10(folder: Path) -> Ids:
    arrays, ids = _arrays("CIFAR10", 3, 32, {"train": 2, "test": 1})
    below = folder / "cifar-10-batches-py"
    images, labels = arrays["train"]
    for number, part in enumerate(np.array_split(np.arange(len(images)), 5), 1):
        _batch(below / f"data_batch_{number}", images[part], labels[part], "labels")
    _batch(below / "test_batch", *arrays["test"], "labels")
    write(
        below / "batches.meta",
        pickle.dumps({"label_names": ["airplane", "automobile", "bird"]}, protocol=2),
    )
    write(below / "readme.html", "<a>")
    return ids


def cifar100(folder: Path) -> Ids:
    arrays, ids = _arrays("CIFAR100", 3, 32, {"train": 2, "test": 1})
    below = folder / "cifar-100-python"
    for split, (images, labels) in arrays.items():
        _batch(below / split, images, labels, "fine_labels")
    names = {
        "fine_label_names": ["apple", "aquarium_fish", "baby"],
        "coarse_label_names": ["fish", "fruit", "people"],
    }
    write(below / "meta", pickle.dumps(names, protocol=2))
    return ids


# --------------------------------------------------------------------------------------------------
# datasets whose samples are files


def _cells(classes: int, per_class: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    """(split, class, number among those of the class), in the order in which datasets number their
    files."""
    for first, (split, count) in enumerate(per_class.items()):
        yield from (
            (split, label, 3 * first + number)
            for label in range(classes)
            for number in range(count)
        )


def colour(label: int, number: int):
    return np.repeat(picture(label, number)[..., None], 3, axis=2)


def flowers(folder: Path) -> Ids:
    from scipy.io import savemat

    below = folder / "flowers-102"
    ids, positions, labels = {}, {}, []
    for index, (split, label, number) in enumerate(
        _cells(102, {"val": 1, "train": 1, "test": 1}), 1
    ):
        save(below / f"jpg/image_{index:05d}.jpg", colour(label, number))
        ids.setdefault(split, []).append(f"flowers-102/jpg/image_{index:05d}.jpg")
        positions.setdefault(split, []).append(index)
        labels.append(label + 1)
    savemat(below / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    keys = {"train": "trnid", "val": "valid", "test": "tstid"}
    savemat(
        below / "setid.mat",
        {keys[split]: np.array([found], np.uint16) for split, found in positions.items()},
    )
    return ids


def cars(folder: Path) -> Ids:
    from scipy.io import savemat

    below = folder / "stanford_cars"
    ids, rows = {"train": [], "test": []}, {"train": [], "test": []}
    for split, label, number in _cells(2, {"train": 2, "test": 1}):
        name = f"{len(rows[split]) + 1:05d}.jpg"
        save(below / f"cars_{split}/{name}", colour(label, number))
        rows[split].append((1, 1, 15, 15, label + 1, name))
        ids[split].append(f"stanford_cars/cars_{split}/{name}")
    kinds = np.dtype(
        [
            (field, object)
            for field in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
        ]
    )
    (below / "devkit").mkdir()
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, name in files.items():
        savemat(below / name, {"annotations": np.array([rows[split]], kinds)})
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], object)
    savemat(below / "devkit/cars_meta.mat", {"class_names": names})
    return ids


def aircraft(folder: Path) -> Ids:
    names = ["707-320", "F/A-18", "Spitfire Mk IX"]
    below = folder / "fgvc-aircraft-2013b/data"
    ids, lines = {}, {}
    for index, (split, label, number) in enumerate(_cells(3, {"train": 1, "val": 1, "test": 1})):
        save(below / f"images/{1000 + index:07d}.jpg", colour(label, number))
        ids.setdefault(split, []).append(f"fgvc-aircraft-2013b/data/images/{1000 + index:07d}.jpg")
        lines.setdefault(split, []).append(f"{1000 + index:07d} {names[label]}\n")
    for split, found in lines.items():
        write(below / f"images_variant_{split}.txt", "".join(found))
    write(below / "variants.txt", "".join(f"{name}\n" for name in names))
    return ids


def food(folder: Path) -> Ids:
    names = ["apple_pie", "baklava", "crème_brulée"]
    below = folder / "food-101"
    ids, listed = {}, {}
    for split, label, number in _cells(3, {"train": 2, "test": 1}):
        name = f"{names[label]}/{100 + number}"
        save(below / f"images/{name}.jpg", colour(label, number))
        ids.setdefault(split, []).append(f"food-101/images/{name}.jpg")
        listed.setdefault(split, {}).setdefault(names[label], []).append(name)
    for split, found in listed.items():
        write(below / f"meta/{split}.json", json.dumps(found))
    return ids


def textures(folder: Path) -> Ids:
    names = ["banded", "blotchy", "polka-dotted"]
    below = folder / "dtd/dtd"
    ids, lines = {}, {}
    for split, label, number in _cells(3, {"train": 1, "val": 1, "test": 1}):
        name = f"{names[label]}/{names[label]}_{number:04d}.jpg"
        save(below / "images" / name, colour(label, number))
        ids.setdefault(split, []).append(f"dtd/dtd/images/{name}")
        lines.setdefault(split, []).append(f"{name}\n")
    for split, found in lines.items():
        write(below / f"labels/{split}1.txt", "".join(found))
    return ids


def signs(folder: Path) -> Ids:
    below = folder / "gtsrb"
    ids, rows = {"train": [], "test": []}, [["Filename", "Width", "Height", "ClassId"]]
    for split, label, number in _cells(43, {"train": 2, "test": 1}):
        if split == "train":
            name = f"GTSRB/Training/{label:05d}/00000_{number:05d}.ppm"
        else:
            name = f"GTSRB/Final_Test/Images/{len(rows) - 1:05d}.ppm"
            rows.append([Path(name).name, 16, 16, label])
        save(below / name, colour(label, number))
        ids[split].append(f"gtsrb/{name}")
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator="\n").writerows(rows)
    write(below / "GT-final_test.csv", text.getvalue())
    write(below / "GTSRB/Training/00000/GT-00000.csv", "Filename;ClassId\n")
    return ids


def land(folder: Path) -> Ids:
    ids = []
    for _, label, number in _cells(3, {"train": 3}):
        name = ("AnnualCrop", "Forest", "SeaLake")[label]
        ids.append(f"eurosat/2750/{name}/{name}_{number}.jpg")
        save(folder / ids[-1], colour(label, number))
    return {"train": ids}


def pets(folder: Path) -> Ids:
    """Trimaps: the left half is the pet, the right half background, the first row the border."""
    names = ["Abyssinian", "american_bulldog", "Maine_Coon"]
    below = folder / "oxford-iiit-pet"
    trimap = np.full((16, 16), 2)
    trimap[:, :8] = 1
    trimap[0] = 3
    ids, lines = {}, {}
    for split, label, number in _cells(3, {"train": 2, "test": 1}):
        name = f"{names[label]}_{number}"
        save(below / f"images/{name}.jpg", colour(label, number))
        save(below / f"annotations/trimaps/{name}.png", trimap)
        ids.setdefault(split, []).append(f"oxford-iiit-pet/images/{name}.jpg")
        lines.setdefault(split, []).append(f"{name} {label + 1} {1 + (label == 1)} 1\n")
    write(below / "annotations/trainval.txt", "".join(lines["train"]))
    write(below / "annotations/test.txt", "".join(lines["test"]))
    write(below / "annotations/xmls/Abyssinian_0.xml", "<annotation/>")
    return ids


def voc(folder: Path) -> Ids:
    """Masks with a palette: a person on the left, background on the right, the first row void."""
    below = folder / "VOCdevkit/VOC2012"
    mask = np.zeros((16, 16))
    mask[:, :8] = 15
    mask[0] = 255
    ids, lines = {}, {}
    for split, given, number in [
        ("train", "train", 0),
        ("train", "train", 1),
        ("test", "val", 2),
        ("test", "val", 3),
    ]:
        name = f"2007_{number:06d}"
        save(below / f"JPEGImages/{name}.jpg", colour(15, number))
        save(below / f"SegmentationClass/{name}.png", mask, palette=True)
        write(below / f"Annotations/{name}.xml", "<annotation/>")
        ids.setdefault(split, []).append(f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg")
        lines.setdefault(given, []).append(f"{name}\n")
    more = {f"train_{number}": number for number in (4, 5)}  # so that validation can be cut
    for name, number in more.items():
        save(below / f"JPEGImages/{name}.jpg", colour(15, number))
        save(below / f"SegmentationClass/{name}.png", mask, palette=True)
        ids["train"].append(f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg")
        lines["train"].append(f"{name}\n")
    for given, found in lines.items():
        write(below / f"ImageSets/Segmentation/{given}.txt", "".join(found))
    return ids


def cityscapes(folder: Path) -> Ids:
    """The left half is road, the right half a car; the first rows are unlabelled, a parking lot and
    what is 255."""
    mask = np.full((16, 16), 26)
    mask[:, :8] = 7
    mask[:3] = np.array([0, 9, 255])[:, None]
    ids = {"train": [], "test": []}
    for split, given, city, number in [
        *(("train", "train", city, number) for city in ("ulm", "aachen") for number in (1, 0)),
        *(("test", "val", "lindau", number) for number in (4, 5)),
    ]:
        name = f"{given}/{city}/{city}_{number:06d}_000019"
        save(
            folder / f"leftImg8bit/{name}_leftImg8bit.png",
            colour(7 if city == "ulm" else 26, number),
        )
        save(folder / f"gtFine/{name}_gtFine_labelIds.png", mask)
        write(folder / f"gtFine/{name}_gtFine_polygons.json", "{}")
        ids[split].append(f"leftImg8bit/{name}_leftImg8bit.png")
    return ids


@dataclass(frozen=True)
class Miniature:
    """A dataset: what writes it into a folder and returns the ids of each given split, and what is
    then in it.

    image: a file with a sample, for datasets that have such. given: the splits that the dataset
    itself has.
    """

    write: Callable[[Path], Ids]
    classes: int
    first: tuple[str, ...]  # names of the first classes
    side: int = 16
    channels: int = 3
    image: str | None = None
    kind: str = "classification"


DATASETS = {
    "MNIST": Miniature(mnist("MNIST"), 10, ("0 - zero", "1 - one"), 28, 1),
    "FashionMNIST": Miniature(mnist("FashionMNIST"), 10, ("T-shirt/top", "Trouser"), 28, 1),
    "KMNIST": Miniature(mnist("KMNIST"), 10, ("o", "ki", "su"), 28, 1),
    "EMNIST": Miniature(
        mnist("EMNIST", 47, "emnist-balanced-{}", test="test"), 47, (*"0123456789", "A", "B"), 28, 1
    ),
    "SVHN": Miniature(svhn, 10, ("0", "1", "2"), 32),
    "CIFAR10": Miniature(cifar10, 3, ("airplane", "automobile", "bird"), 32),
    "CIFAR100": Miniature(cifar100, 3, ("apple", "aquarium_fish", "baby"), 32),
    "Flowers102": Miniature(
        flowers,
        102,
        ("pink primrose", "hard-leaved pocket orchid"),
        image="flowers-102/jpg/image_00007.jpg",
    ),
    "StanfordCars": Miniature(
        cars,
        2,
        ("AM General Hummer SUV 2000", "Acura RL Sedan 2012"),
        image="stanford_cars/cars_test/00001.jpg",
    ),
    "FGVCAircraft": Miniature(
        aircraft,
        3,
        ("707-320", "F/A-18", "Spitfire Mk IX"),
        image="fgvc-aircraft-2013b/data/images/0001001.jpg",
    ),
    "Food101": Miniature(
        food, 3, ("apple_pie", "baklava", "crème_brulée"), image="food-101/images/baklava/100.jpg"
    ),
    "DTD": Miniature(
        textures,
        3,
        ("banded", "blotchy", "polka-dotted"),
        image="dtd/dtd/images/banded/banded_0000.jpg",
    ),
    "GTSRB": Miniature(
        signs, 43, ("0", "1", "2"), image="gtsrb/GTSRB/Training/00007/00000_00001.ppm"
    ),
    "EuroSAT": Miniature(
        land, 3, ("AnnualCrop", "Forest", "SeaLake"), image="eurosat/2750/Forest/Forest_1.jpg"
    ),
    "OxfordIIITPet": Miniature(
        pets,
        3,
        ("Abyssinian", "American Bulldog", "Maine Coon"),
        image="oxford-iiit-pet/images/Abyssinian_0.jpg",
    ),
}
SEGMENTED = {
    "OxfordIIITPet": Miniature(
        pets,
        2,
        ("background", "pet"),
        image="oxford-iiit-pet/images/Abyssinian_0.jpg",
        kind="segmentation",
    ),
    "VOCSegmentation": Miniature(
        voc,
        21,
        ("background", "aeroplane"),
        image="VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg",
        kind="segmentation",
    ),
    "Cityscapes": Miniature(
        cityscapes,
        19,
        ("road", "sidewalk", "building"),
        image="leftImg8bit/val/lindau/lindau_000004_000019_leftImg8bit.png",
        kind="segmentation",
    ),
}
MASKS = {  # a mask of each
    "OxfordIIITPet": "oxford-iiit-pet/annotations/trimaps/Abyssinian_0.png",
    "VOCSegmentation": "VOCdevkit/VOC2012/SegmentationClass/2007_000001.png",
    "Cityscapes": "gtFine/val/lindau/lindau_000004_000019_gtFine_labelIds.png",
}


def trust(monkeypatch, name: str, folder: Path) -> None:
    """Have torchvision's class hold the checksums of this miniature's files to be right."""
    from torchvision import datasets

    kind = getattr(datasets, name)
    if name == "SVHN":
        files = {
            split: (url, file, md5(folder / file))
            for split, (url, file, _) in kind.split_list.items()
            if split != "extra"
        }
        monkeypatch.setattr(kind, "split_list", files)
    if name in ("CIFAR10", "CIFAR100"):
        below = folder / kind.base_folder
        for part in ("train_list", "test_list"):
            monkeypatch.setattr(
                kind, part, [[file, md5(below / file)] for file, _ in getattr(kind, part)]
            )
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(below / kind.meta["filename"])})
    if name == "Flowers102":
        below = folder / "flowers-102"
        files = {
            key: (file, md5(below / file) if (below / file).is_file() else given)
            for key, (file, given) in kind._file_dict.items()
        }
        monkeypatch.setattr(kind, "_file_dict", files)


# --------------------------------------------------------------------------------------------------
# as they are published


def tarred(folder: Path, *names: str, mode: str = "w:gz") -> bytes:
    """A .tar.gz archive of what is in a folder."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name in names:
            archive.add(folder / name, name)
    return content.getvalue()


def zipped(folder: Path, *names: str) -> bytes:
    """A .zip archive of files and folders in a folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            for path in sorted((folder / name).rglob("*")) or [folder / name]:
                archive.write(path, path.relative_to(folder).as_posix())
    return content.getvalue()


def _published_emnist(folder: Path) -> dict[str, bytes]:
    for path in (folder / "EMNIST/raw").iterdir():
        write(folder / f"packed/gzip/{path.name}.gz", gzip.compress(path.read_bytes()))
    return {"gzip.zip": zipped(folder / "packed", "gzip")}


def _published_signs(folder: Path) -> dict[str, bytes]:
    return {
        "GTSRB-Training_fixed.zip": zipped(folder / "gtsrb", "GTSRB/Training"),
        "GTSRB_Final_Test_Images.zip": zipped(folder / "gtsrb", "GTSRB/Final_Test"),
        "GTSRB_Final_Test_GT.zip": zipped(folder / "gtsrb", "GT-final_test.csv"),
    }


def _in(folder: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


PUBLISHED: dict[
    str, Callable[[Path], dict[str, bytes]]
] = {  # the files that a dataset in a folder is published as
    "MNIST": lambda folder: {
        f"{name}.gz": gzip.compress(content) for name, content in _in(folder, "MNIST/raw/*").items()
    },
    "EMNIST": _published_emnist,
    "CIFAR10": lambda folder: {"cifar-10-python.tar.gz": tarred(folder, "cifar-10-batches-py")},
    "SVHN": lambda folder: _in(folder, "*.mat"),
    "Flowers102": lambda folder: (
        {"102flowers.tgz": tarred(folder / "flowers-102", "jpg")} | _in(folder, "flowers-102/*.mat")
    ),
    "FGVCAircraft": lambda folder: {
        "fgvc-aircraft-2013b.tar.gz": tarred(folder, "fgvc-aircraft-2013b")
    },
    "Food101": lambda folder: {"food-101.tar.gz": tarred(folder, "food-101")},
    "DTD": lambda folder: {"dtd-r1.0.1.tar.gz": tarred(folder / "dtd", "dtd")},
    "GTSRB": _published_signs,
    "EuroSAT": lambda folder: {"EuroSAT.zip": zipped(folder / "eurosat", "2750")},
    "OxfordIIITPet": lambda folder: {
        f"{part}.tar.gz": tarred(folder / "oxford-iiit-pet", part)
        for part in ("images", "annotations")
    },
    "VOCSegmentation": lambda folder: {
        "VOCtrainval_11-May-2012.tar": tarred(folder, "VOCdevkit", mode="w")
    },
}
