"""Samples that lie in memory."""

from collections.abc import Sequence

from acll.data.images import Pixels, within
from acll.data.manifest import Manifest, Sample
from acll.settings import Kind


def manifest_of_arrays(
    images: Pixels, labels: Pixels, ids: Sequence[str], classes: list[str]
) -> Manifest:
    """images: [N, C, H, W]; labels: [N], or masks [N, H, W]. All are training samples, from which
    others are cut."""
    masks = labels.ndim == 3

    def read(item: Sample) -> tuple[Pixels, Pixels | None]:
        mask = within(labels[item.image], item.box) if masks else None
        return within(images[item.image], item.box), mask

    items = [
        Sample(name, "train", index, label=0 if masks else int(labels[index]), group=name)
        for index, name in enumerate(ids)
    ]
    size = (int(images.shape[2]), int(images.shape[3]))
    kind: Kind = "segmentation" if masks else "classification"
    return Manifest(
        kind,
        classes,
        ["train"],
        items,
        read,
        lambda item: [size, size] if masks else [size],
        trusted=True,
    )
