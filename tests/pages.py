"""README and the pages of docs/ as tests read them: their blocks of code, links and headings.

A block of code is fenced and says its language. `sh` and `python` are run and `yaml` is checked, by
tests/test_documentation.py. A comment before a block says why that cannot be: `<!-- not run: the
reason -->`, or which test runs it: `<!-- run by: tests/test_x.py -->`. `console` shows output, so
it needs such a comment, and `text` is nothing that anybody types.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

README = ROOT / "README.md"
PAGES = (
    README,
    *(ROOT / "docs" / f"{name}.md" for name in ("first-run", "own-images", "sharing")),
    *sorted(
        path
        for path in (ROOT / "docs").glob("*.md")
        if path.stem not in ("first-run", "own-images", "sharing")
    ),
    ROOT / "CONTRIBUTING.md",
    ROOT / "config/README.md",
)
LANGUAGES = ("sh", "python", "yaml", "console", "text")
_BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*?) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block. marker: the comment before it, if it is about running it."""

    page: Path
    line: int
    language: str
    marker: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether tests/test_documentation.py has to run or check it."""
        return not self.marker and self.language != "text"

    @property
    def needs_checkout(self) -> bool:
        """Whether it is about runs, and not about finished networks alone."""
        return bool(re.search(r"^(make|dvc|git|snakemake)\b", self.text, re.MULTILINE))


def blocks(page: Path, text: str | None = None) -> list[Block]:
    """Return the fenced blocks of a page, in order. text: in place of what is in the file."""
    text = page.read_text(encoding="utf-8") if text is None else text
    found = []
    for match in _BLOCK.finditer(text):
        marker = match["marker"] or ""
        about = marker if marker.startswith(("not run", "run by")) else ""
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(page, line, match["language"], about, match["text"]))
    return found


def fault_of(block: Block) -> str:
    """Return what is wrong with a block and its marker; empty if nothing is."""
    if block.language not in LANGUAGES:
        return f"{block}: its language is none of {', '.join(LANGUAGES)}"
    if block.language == "console" and not block.marker:
        return f"{block}: output needs a comment that says where it comes from"
    if block.marker.startswith("run by: "):
        test = ROOT / block.marker.removeprefix("run by: ")
        if not test.is_file() or block.page.name not in test.read_text(encoding="utf-8"):
            return f"{block}: {test.name} does not read this page"
    elif block.marker and not re.fullmatch(r"not run: \S.{8,}", block.marker):
        return f"{block}: <!-- {block.marker} --> gives no reason"
    for name in re.findall(r"\b(?:tests|benchmarks)/\w+\.py", block.marker):
        if not (ROOT / name).is_file():
            return f"{block}: there is no {name}"
    return ""


def without_code(text: str) -> str:
    """Return a page without its blocks and spans of code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def indented_code(page: Path) -> list[str]:
    """Return where a page has code that is indented and not fenced, which no test would see."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.findall(r"(?:^|\n\n)( {4}\S.*)", text)


def links(page: Path) -> list[str]:
    """Return what a page links to, and its pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.lower().replace("`", ""))
        slug, count = kept.strip().replace(" ", "-"), 0
        while (name := f"{slug}-{count}" if count else slug) in found:
            count += 1
        found.add(name)
    return found


def broken_links(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere, less those to other sites."""
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(f"{page.relative_to(ROOT)}: {link}")
    return broken
