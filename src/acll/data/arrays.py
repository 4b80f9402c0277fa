"""Samples that lie in memory."""

from collections.abc import Sequence

from acll.data.images import Pixels, within
from acll.data.manifest import Manifest, Sample
from acll.settings import Kind


def manifest_of_arrays(
    images: Pixels, labels: Pixels, ids: Sequence[str], classes: list[str]
) -> Manifest:
    """Return the manifest of images [N, C, H, W] with labels [N], or masks [N, H, W].

    All are training samples, from which validation and test are cut.
    """
    masks = labels.ndim == 3

    def read(sample: Sample) -> tuple[Pixels, Pixels | None]:
        mask = within(labels[sample.image], sample.box) if masks else None
        return within(images[sample.image], sample.box), mask

    samples = [
        Sample(name, "train", index, label=0 if masks else int(labels[index]), group=name)
        for index, name in enumerate(ids)
    ]
    size = (int(images.shape[2]), int(images.shape[3]))
    kind: Kind = "segmentation" if masks else "classification"
    return Manifest(
        kind,
        classes,
        ["train"],
        samples,
        read,
        lambda sample: [size, size] if masks else [size],
        trusted=True,
    )
