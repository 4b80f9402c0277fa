"""SVG files: how they are written, and how they are put into a page without trusting them."""

import xml.etree.ElementTree as ET
from pathlib import Path

from acll.errors import UserError

FIGURE_DPI = 150  # pixels an inch of pictures
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DRAWN = {"svg", "g", "path", "use", "text", "tspan", "title", "defs", "clipPath", "rect"}

# without these, names of elements would be written with prefixes that HTML does not know
ET.register_namespace("", SVG)
ET.register_namespace("xlink", XLINK)


def for_page(path: Path) -> str:
    """Return a drawing to stand in a page: its shapes, texts and titles.

    Whatever could run, or ask another server, is left out: figures may have been pulled from
    elsewhere. Raises UserError for a file that is no SVG.
    """
    try:
        root = ET.fromstring(path.read_bytes())  # noqa: S314  expat refuses what grows without end
    except ET.ParseError:
        raise UserError(f"{path}: not a drawing; `make run` makes it anew") from None
    if root.tag != f"{{{SVG}}}svg":
        raise UserError(f"{path}: not a drawing; `make run` makes it anew")
    root.attrib["role"] = "img"
    for element in root.iter():
        for child in list(element):
            if child.tag.removeprefix(f"{{{SVG}}}") not in _DRAWN:
                element.remove(child)
        for name, value in list(element.attrib.items()):
            if not _is_harmless(name.rpartition("}")[2].lower(), value):
                del element.attrib[name]
    return ET.tostring(root, encoding="unicode")


def _is_harmless(name: str, value: str) -> bool:
    """Return whether an attribute neither runs anything nor leads out of the drawing."""
    outside = value.replace("url(#", "")
    return not (
        name.startswith("on")
        or (name == "href" and not value.startswith("#"))
        or "url" in outside.lower()
        or "\\" in value  # CSS would take it for part of another word
    )
