"""Compare two results of one configuration: every score digit by digit, every packed tensor bit by
bit.

    python benchmarks/compare_results.py results/demo elsewhere/results/demo

Prints what differs and ends with exit code 1 if anything does. Use it to show that a change of the
code changes no result.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open

# how large files are: that of their form, no result of learning
FORM = (
    "bytes",
    "alone_bytes",
    "size",
)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {key: value for key, value in row.items() if key not in FORM}
            for row in csv.DictReader(file)
        ]


def scores(one: Path, other: Path) -> Iterator[str]:
    """Yield what differs between the tables of scores and trials, as text: each digit counts.

    Of columns that only one of them has, the names are told.
    """
    for name in ("scores.csv", "curves.csv", "trials.csv"):
        left, right = rows_of(one / "tables" / name), rows_of(other / "tables" / name)
        if len(left) != len(right):
            yield f"tables/{name}: {len(left)} and {len(right)} rows"
        columns = [set(rows[0]) if rows else set() for rows in (left, right)]
        for column in sorted(columns[0] ^ columns[1]):
            yield f"tables/{name}: only one has the column {column}"
        common = sorted(columns[0] & columns[1])
        for number, (before, after) in enumerate(zip(left, right, strict=False), 1):
            differing = [key for key in common if before[key] != after[key]]
            if differing:
                yield f"tables/{name}: row {number}: {', '.join(differing)}"


def tensors(one: Path, other: Path) -> Iterator[str]:
    """Yield what differs between packed networks, tensor by tensor."""
    with safe_open(one, framework="np") as left, safe_open(other, framework="np") as right:
        if set(left.keys()) != set(right.keys()):
            yield f"other tensors: {sorted(set(left.keys()) ^ set(right.keys()))[:3]}"
        for name in sorted(set(left.keys()) & set(right.keys())):
            before, after = left.get_tensor(name), right.get_tensor(name)
            if (
                before.dtype != after.dtype
                or before.shape != after.shape
                or before.tobytes() != after.tobytes()
            ):
                yield f"{name} differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    given = parser.parse_args()
    differences = list(scores(given.one, given.other))
    networks = sorted(
        path.relative_to(given.one) for path in given.one.glob("nodes/**/network.safetensors")
    )
    others = {
        path.relative_to(given.other) for path in given.other.glob("nodes/**/network.safetensors")
    }
    differences += [f"{path}: only in one of them" for path in sorted(set(networks) ^ others)]
    compared = 0
    for path in networks:
        if path in others:
            compared += 1
            differences += [
                f"{path}: {difference}"
                for difference in tensors(given.one / path, given.other / path)
            ]
    print(
        "\n".join(differences)
        or f"equal: all scores digit by digit, {compared} networks bit by bit"
    )
    sys.exit(bool(differences or not compared))


if __name__ == "__main__":
    main()
