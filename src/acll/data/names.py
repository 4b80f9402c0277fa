"""Names that people take for one, and computers do not."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

# what other people call the splits
_SPLIT_WORDS = {
    "train": {"train", "training", "trn", "learn", "learning"},
    "val": {"val", "valid", "validate", "validation", "dev", "development", "eval", "evaluation"},
    "test": {"test", "testing", "tests", "tst"},
}
_SPLIT_OF = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
# what stands beside such a word and means nothing
_FILLERS = {
    "set", "data", "split", "images", "imgs", "img", "image", "folder", "dir", "v", "my", "new",
    "final", "full", "small", "the",
}  # fmt: skip
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
# letters that are not seen and are no format characters (category Cf): fillers of Hangul, selectors
# of variants, a joiner
_UNSEEN = re.compile(r"[\u034f\u115f\u1160\u180b-\u180d\u3164\ufe00-\ufe0f\uffa0]")
_QUOTES = "'\"`´‘’‚“”„«»‹›"
_ENDS = re.compile(rf"^{_BLANK}+|{_BLANK}+$")


def stripped(text: str) -> str:
    """Return text without blanks at its ends, also those of no width."""
    return _ENDS.sub("", text)


def in_one_form(text: str) -> str:
    """Return text as it looks: one Unicode form, single blanks, none at the ends.

    Letters of another width are those of the usual one, and letters that are not seen are left out.
    """
    one_form = text
    if not text.isascii():
        seen = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
        one_form = unicodedata.normalize("NFKC", _UNSEEN.sub("", seen))
    return re.sub(f"{_BLANK}+", " ", stripped(one_form))


def folded(name: str) -> str:
    """Return what is equal for names that differ only by case, blanks, Unicode form or slashes."""
    text = in_one_form(name.replace("\\", "/")).casefold()
    return unicodedata.normalize("NFKC", text)


def difference(name: str, other: str) -> str:
    """Return in words how another name differs whose folded form is equal."""
    if "\\" in name + other:
        return "written with / in place of \\" if "\\" in name else "written with \\ in place of /"
    forms = [unicodedata.normalize("NFKC", one) for one in (name, other)]
    if forms[0] == forms[1]:
        return "written in another Unicode form"
    if forms[0].casefold() == forms[1].casefold():
        return "written in another case"
    return "written with other blanks, or letters that are not seen"


def as_class(name: str) -> str:
    """Return what is equal for names that may mean one class.

    Beside what `folded` does, quotes around a name and zeros before a number mean nothing.
    """
    text = folded(name).strip(_QUOTES).strip()
    return text.lstrip("0") or "0" if text.isdecimal() else text


def alike(names: Iterable[str], form: Callable[[str], str] = folded) -> list[list[str]]:
    """Return the groups of unlike names whose forms are equal, all sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[form(name)].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def split_meant(folder: str) -> str | None:
    """Return the split that the name of a folder means, such as `val` for `Validation_set`."""
    word, *more = _words(folder) or [""]
    if more not in ([], ["set"], ["data"], ["split"], ["images"], ["imgs"]):
        return None
    return _SPLIT_OF.get(word)


def split_like(folder: str) -> str | None:
    """Return the split that a folder beside the splits may mean, such as `test` for `my_testset`.

    More is taken for one than by `split_meant`: what stands there is not read.
    """
    meant = {_like_split(word) for word in _words(folder) if word not in _FILLERS}
    return meant.pop() if len(meant) == 1 else None


def _like_split(word: str) -> str | None:
    """Return the split that a word means, such as `val` for `validset`."""
    bare = (word.removesuffix(filler) for filler in ("", "set", "data", "split"))
    return next((_SPLIT_OF[one] for one in bare if one in _SPLIT_OF), None)


def is_split_column(name: str) -> bool:
    """Return whether a name is `split` but for case, number and other signs than letters."""
    return "".join(_words(name)) in ("split", "splits")


def part_meant(folder: str) -> str | None:
    """Return `images` or `masks`, where the name of a folder means one of them."""
    word = "".join(_words(folder))
    return next((part for part, words in _PART_WORDS.items() if word in words), None)


def _words(folder: str) -> list[str]:
    return re.sub(r"[\W\d_]+", " ", folder.casefold()).split()
