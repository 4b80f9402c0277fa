"""Whether an index means one class in all masks of a task, as far as their colours tell.

Programs that draw masks may number the colours of each file in an order of its own. So an index
that has another colour than in the masks before it, or a colour that has another index, mixes
classes. Colours of indices that a mask does not use tell nothing.

Masks of grey levels beside masks with palettes are taken for what they seem: level and index are
the same class. That is doubtful, and impossible where a palette has other levels than indices.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from acll.data.faults import DataFault
from acll.data.manifest import Sample

_Colour = tuple[int, ...]  # red, green, blue


class PaletteCheck:
    """The colours of the masks so far."""

    def __init__(self) -> None:
        # by index and by colour: the other one, and the first mask that has both
        self._colours: dict[int, tuple[_Colour, str]] = {}
        self._indices: dict[_Colour, tuple[int, str]] = {}
        # the first mask of grey levels, with a palette, and with a palette of other levels
        self._plain: Sample | None = None
        self._indexed: Sample | None = None
        self._odd: Sample | None = None

    def fault(
        self, sample: Sample, used: Sequence[int], palette: NDArray[np.uint8] | None
    ) -> DataFault | None:
        """Return what is wrong with a mask, given those before it.

        used: the indices in the mask, or in a tile of it. palette: as in `FileNotes`.
        """
        if sample.mask is None:
            return None
        if palette is None:
            self._plain = self._plain or sample
        else:
            colours = {
                index: tuple(palette[index].tolist()) for index in used if index < len(palette)
            }
            for what in self._differences(sample, colours, palette):
                return _fault(sample, f"{what}: classes would be mixed")
            self._indexed = self._indexed or sample
            if _odd(colours):
                self._odd = self._odd or sample
        if self._plain is None or self._odd is None:
            return None
        return _fault(
            sample,
            f"{self._odd.mask} has a palette of grey levels in another order, {self._plain.mask} "
            "has levels without a palette: classes would be mixed",
        )

    def warnings(self) -> list[DataFault]:
        """Return a fault where some masks have a palette and some have grey levels."""
        if self._plain is None or self._indexed is None:
            return []
        what = f"its mask has a palette, {self._plain.mask} has grey levels"
        return [
            _fault(self._indexed, f"{what}: an index and an equal level are taken for one class")
        ]

    def _differences(
        self, sample: Sample, colours: dict[int, _Colour], palette: NDArray[np.uint8]
    ) -> Iterator[str]:
        """Yield in what a palette differs from those before it."""
        for index, colour in colours.items():
            own = f"index {index} is {_shown(colour)} in its mask"
            before, file = self._colours.setdefault(index, (colour, sample.mask))
            if before != colour:
                yield f"{own}, but {_shown(before)} in {file}"
            first, file = self._indices.setdefault(colour, (index, sample.mask))
            # a palette that has a colour at both indices has it twice on purpose
            twice = first < len(palette) and tuple(palette[first].tolist()) == colour
            if first != index and not twice:
                yield f"{own}, but {_shown(colour)} is index {first} in {file}"


def _odd(colours: dict[int, _Colour]) -> bool:
    """Return whether all colours are grey, but not the levels of their indices."""
    grey = all(len(set(colour)) == 1 for colour in colours.values())
    return grey and any(colour[0] != index for index, colour in colours.items())


def _fault(sample: Sample, what: str) -> DataFault:
    words = f"{what}; save all masks with one palette, or all as grey levels"
    return DataFault("palette", sample.image_id or sample.id, words)


def _shown(colour: _Colour) -> str:
    return "#" + bytes(colour).hex()
