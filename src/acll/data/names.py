"""Names that people take for one, and computers do not."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

# what other people call the splits
_SPLIT_WORDS = {
    "train": {"train", "training", "trn", "learn", "learning"},
    "val": {"val", "valid", "validate", "validation", "dev", "development", "eval", "evaluation"},
    "test": {"test", "testing", "tests", "tst"},
}
# what they call the folders of `mask_folder`
_PART_WORDS = {
    "images": {
        "image", "images", "img", "imgs", "jpegimages", "photo", "photos", "input", "inputs",
    },
    "masks": {
        "mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth",
        "segmentation", "segmentations", "segmentationclass", "target", "targets",
    },
}  # fmt: skip
_BLANK = r"[\s\u200b\u2060\ufeff]"  # letters without a shape are no blanks for `str.strip`
_ENDS = re.compile(rf"^{_BLANK}+|{_BLANK}+$")


def stripped(text: str) -> str:
    """Return text without blanks at its ends, also those of no width."""
    return _ENDS.sub("", text)


def in_one_form(text: str) -> str:
    """Return text as it looks: one Unicode form, single blanks, none at the ends."""
    return re.sub(f"{_BLANK}+", " ", stripped(unicodedata.normalize("NFC", text)))


def folded(name: str) -> str:
    """Return what is equal for names that differ only by case, blanks, Unicode form or slashes."""
    text = in_one_form(name.replace("\\", "/")).casefold()
    return unicodedata.normalize("NFC", text)


def difference(name: str, other: str) -> str:
    """Return in words how another name differs whose folded form is equal."""
    if "\\" in name + other:
        return "written with / in place of \\" if "\\" in name else "written with \\ in place of /"
    forms = [unicodedata.normalize("NFC", one) for one in (name, other)]
    if forms[0] == forms[1]:
        return "written in another Unicode form"
    same_case = forms[0].casefold() == forms[1].casefold()
    return "written in another case" if same_case else "written with other blanks"


def alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of unlike names whose folded forms are equal, all sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[folded(name)].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def split_meant(folder: str) -> str | None:
    """Return the split that the name of a folder means, such as `val` for `Validation_set`."""
    word, *more = _words(folder) or [""]
    if more not in ([], ["set"], ["data"], ["split"], ["images"], ["imgs"]):
        return None
    return next((split for split, words in _SPLIT_WORDS.items() if word in words), None)


def is_split_column(name: str) -> bool:
    """Return whether a name is `split` but for case, number and other signs than letters."""
    return "".join(_words(name)) in ("split", "splits")


def part_meant(folder: str) -> str | None:
    """Return `images` or `masks`, where the name of a folder means one of them."""
    word = "".join(_words(folder))
    return next((part for part, words in _PART_WORDS.items() if word in words), None)


def _words(folder: str) -> list[str]:
    return re.sub(r"[\W\d_]+", " ", folder.casefold()).split()
