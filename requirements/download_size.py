"""Say how much an installation downloads: `python requirements/download_size.py PYLOCK`.

PYLOCK: a lock in the format of PEP 751, which has the sizes of files. Of several files for one
machine the largest counts.
"""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print it, in a few characters."""
    packages = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["packages"]
    total = 0
    for package in packages:
        files = package.get("wheels") or [package["sdist"]]
        total += max(file["size"] for file in files)
    print(f"{total / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
