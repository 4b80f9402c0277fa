"""Words of tables, figures and the report."""

from collections.abc import Mapping, Sequence


class _Words(dict[str, str]):
    """Words for names; a name that is not among them, as of a plug-in, is its own."""

    def __missing__(self, name: str) -> str:
        return name.replace("_", " ")


# of metrics, as columns `metric` have them
METRIC_WORDS = _Words(
    accuracy="accuracy",
    balanced_accuracy="balanced accuracy",
    macro_f1="macro F1",
    mean_iou="mean IoU",
    mean_dice="mean Dice",
    pixel_accuracy="pixel accuracy",
    boundary_f1="boundary F1",
    mixed="mixed",
)
WIDTH = 100  # columns of a terminal


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence has them: `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def grown_words(widths: Mapping[str, float]) -> str:
    """Return in words for which tasks a network grew, and to which width; there is one at least."""
    return listed([f"to width {width:g} for {task}" for task, width in widths.items()])


def shortened(text: str, length: int) -> str:
    """Return a text of at most `length` characters; a longer one ends with `…`."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
