"""Words of tables, figures and the report."""

from collections.abc import Sequence

# of metrics, as columns `metric` have them
METRIC_WORDS = {"accuracy": "accuracy", "mean_iou": "mean IoU", "mixed": "mixed"}
WIDTH = 100  # columns of a terminal


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence has them: `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def shortened(text: str, length: int) -> str:
    """Return a text of at most `length` characters; a longer one ends with `…`."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
