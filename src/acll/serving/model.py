"""A packed network in use: `acll.load(path)`, its tasks, their networks, predictions.

What is not asked for is not read: opening a file reads its header, and a task's network reads the
weights that it needs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from acll.data.batches import evaluation_batch
from acll.errors import UserError
from acll.networks.build import TaskNetwork
from acll.networks.spec import alike_but_for_width
from acll.packing import packed_file
from acll.packing.accounting import unread_share, weights_owned, weights_read
from acll.packing.load import loaded, naming, skeleton, task_info_of
from acll.packing.ownership import PackingError, TaskRecord, grew
from acll.plugins import add_plugins
from acll.serving.inputs import ImageError, OneImage, kept
from acll.serving.predictions import Prediction, TaskInUse, classified, or_error, segmented
from acll.serving.recognition import AT_ONCE, Recognised, Recogniser
from acll.settings import AUTO, Kind

_HELD = 2**28  # bytes of networks


@dataclass(frozen=True)
class LearnedTask:
    """What a packed network knows of one of its tasks.

    Shares are of all shared weights of the network.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    image_size: tuple[int, int]  # height, width to which images are resized, or of their tiles
    mean: tuple[float, ...]  # of each channel, white being 1
    std: tuple[float, ...]
    metric: str
    score: float  # on the validation split, when it was learned
    # its logits are divided by it before their softmax (Guo et al. 2017); fitted on the validation
    # split
    temperature: float
    ratio: float | None  # release ratio; None where nothing was released
    # weights that it trained and kept, or has from a task that was dropped; None where its method
    # owns none
    owned_share: float | None
    used_share: float  # these, and those of the tasks before it that it reads
    unread_share: float | None  # of the weights of the tasks before it, those that it does not read
    width: float  # factor of the channels of its network, which may have grown since
    grew: bool  # whether the network grew for this task


class PackedNetwork:
    """A packed file in use. Only its header is read before a task is asked for."""

    def __init__(self, opened: packed_file.PackedFile) -> None:
        self._file = opened
        self._held: dict[tuple[str, torch.device], TaskInUse] = {}  # what `predict` has used last

    def __repr__(self) -> str:
        return (
            f"<PackedNetwork {self._file.tensor_file.path}: "
            f"{', '.join(task.name for task in self.tasks)}>"
        )

    @cached_property
    def tasks(self) -> tuple[LearnedTask, ...]:
        """Its tasks, in the order in which they were learned."""
        return tuple(
            self._task(record, position)
            for position, record in enumerate(self._file.header.tasks, 1)
        )

    def task(self, name: str) -> LearnedTask:
        """Return one of its tasks. Raises PackingError for one that was not learned."""
        position = self._file.without_weights().position(name)
        return self.tasks[position - 1]

    def network(self, task: str) -> TaskNetwork:
        """Return the network of a task: a module in evaluation mode, independent of all others.

        It takes images float [N, C, h, w] of the task's `image_size` (h, w), normalised with its
        mean and std. It gives logits [N, classes], or [N, classes, h, w] for a segmentation task.
        Raises PackingError for a task that was not learned, or a file that is not sound.
        """
        return loaded(self._file, task)

    def switch(self, network: TaskNetwork, task: str) -> None:
        """Turn a network that `network` gave into that of another task, in place.

        For services that have many tasks and memory for one network: new values are copied into the
        tensors of the old one. Where the network grew between the two tasks, tensors are new, with
        the layout, type and `requires_grad` that `network` gives them. Where it raises
        PackingError, nothing has changed.
        """
        if not isinstance(network, TaskNetwork):
            raise PackingError(
                f"{type(network).__name__} is no network that `network` gave, and cannot be "
                "switched"
            )
        record, state = self._file.record(task), self._file.state(task)
        with naming(self._file):
            fresh = skeleton(self._file.without_weights(), record, state)
            if not alike_but_for_width(network.built_from, fresh.built_from):
                raise PackingError(
                    "its networks are built otherwise than the one that is to be switched"
                )
        device = next(network.parameters()).device
        network.head = fresh.head
        if network.built_from != fresh.built_from:  # the network grew between the two tasks
            network.encoder, network.decoder = fresh.encoder, fresh.decoder
            network.built_from = fresh.built_from
        elif fresh.decoder is None or network.decoder is None:
            network.decoder = fresh.decoder
        own = network.state_dict(keep_vars=True)
        network.load_state_dict(
            {name: state[name] for name in own if own[name].is_meta}, strict=False, assign=True
        )
        with torch.no_grad():
            for name, value in own.items():
                if not value.is_meta:
                    value.copy_(state[name])
        network.to(device).eval()

    def predict(
        self,
        task: str,
        images: OneImage | Iterable[OneImage],
        device: str | torch.device = "cpu",
        probabilities: bool = False,
    ) -> Prediction | list[Prediction]:
        """Return what an image shows, or a list for several images.

        task: `auto` for the most likely one of each image; predictions say which it is, and how
            sure that is.
        images: one or several of a path, a file open for reading bytes, an image of Pillow, an
            array [H, W] or [H, W, C], or a tensor [H, W] or [C, H, W], of any size.
        probabilities: whether a segmentation task gives those of each pixel, too. They take 4 bytes
            a pixel and class. (A classification task always gives them.)

        They are prepared as the task's images were. Raises PackingError, and ImageError for an
        image that cannot be used.
        """
        several = hasattr(images, "__getitem__") or isinstance(images, Iterable)
        one = _is_one(images) or not several or getattr(images, "ndim", 4) < 4
        found = []
        every: Any = [images] if one else images
        for prediction in self.predict_each(task, every, device, probabilities):
            if isinstance(prediction, ImageError):
                raise prediction
            found.append(prediction)
        return found[0] if one else found

    def predict_each(
        self,
        task: str,
        images: Iterable[OneImage],
        device: str | torch.device = "cpu",
        probabilities: bool = False,
    ) -> Iterator[Prediction | ImageError]:
        """Yield what each image shows, as `predict` gives it, or what is wrong with it.

        Images are taken one after another, so there may be any number of them.
        """
        if _is_one(images):
            images = [cast(OneImage, images)]
        usable = _usable(device)
        if task == AUTO:
            yield from self._recognised(images, usable, probabilities)
        else:
            yield from self._predicted(task, images, usable, probabilities)

    def _predicted(
        self, name: str, images: Iterable[OneImage], device: torch.device, probabilities: bool
    ) -> Iterator[Prediction | ImageError]:
        task = self._in_use(name, device)
        if task.info.kind == "segmentation":
            yield from (segmented(task, probabilities, image) for image in images)
            return
        coming = iter(images)
        while chunk := list(islice(coming, evaluation_batch(task.info))):
            yield from classified(task, chunk)

    def _recognised(
        self, images: Iterable[OneImage], device: torch.device, probabilities: bool
    ) -> Iterator[Prediction | ImageError]:
        """Yield what each image shows, by the network of its most likely task."""
        names = [task.name for task in self.tasks]
        recogniser = Recogniser(names, partial(self._in_use, device=device))
        coming = (or_error(partial(kept, image)) for image in images)
        while chunk := list(islice(coming, AT_ONCE)):
            usable = [image for image in chunk if not isinstance(image, ImageError)]
            recognised = iter(recogniser.each(usable))
            tasks = [one if isinstance(one, ImageError) else next(recognised) for one in chunk]
            yield from self._by_tasks(chunk, tasks, device, probabilities)

    def _by_tasks(
        self,
        images: Sequence[OneImage | ImageError],
        tasks: Sequence[Recognised | ImageError],
        device: torch.device,
        probabilities: bool,
    ) -> Iterator[Prediction | ImageError]:
        """Yield what each image shows by its own task, task by task in one load of its network."""
        found: dict[int, Prediction | ImageError] = {}
        sure: dict[str, dict[int, float]] = {}
        for at, one in enumerate(tasks):
            if isinstance(one, ImageError):
                found[at] = one
            else:
                sure.setdefault(one.task, {})[at] = one.confidence
        for name, own in sure.items():
            given = [cast(OneImage, images[at]) for at in own]
            answers = self._predicted(name, given, device, probabilities)
            for (at, confidence), answer in zip(own.items(), answers, strict=True):
                if not isinstance(answer, ImageError):
                    answer = replace(answer, task_confidence=confidence)
                found[at] = answer
        yield from (found[at] for at in range(len(images)))

    def _in_use(self, name: str, device: torch.device) -> TaskInUse:
        """Return a task with its network; some are held, since images may be of any task in turn.

        It is the last one alone where networks are large.
        """
        if (name, device) not in self._held:
            record, network = self._file.record(name), self.network(name).to(device)
            task = TaskInUse(network, task_info_of(record), record.temperature)
            if sum(one.bytes for one in (*self._held.values(), task)) > _HELD:
                self._held.clear()
            self._held[name, device] = task
        return self._held[name, device]

    def _task(self, record: TaskRecord, position: int) -> LearnedTask:
        header = self._file.header
        total = sum(layer.count for layer in header.layers)
        ratio = record.choice.get("ratio")
        return LearnedTask(
            record.name,
            record.kind,
            record.classes,
            record.image_size,
            record.mean,
            record.std,
            record.metric,
            record.validation_score,
            record.temperature,
            ratio,
            weights_owned(header, position) / total if record.frozen else None,
            weights_read(header, position) / total,
            unread_share(header, position) if record.frozen else None,
            record.width,
            grew(header.tasks, position, header.network),
        )


def _is_one(images: Any) -> bool:
    """Return whether something that may have parts is an image all the same."""
    return isinstance(images, str | Path | Image.Image) or hasattr(images, "read")


def _usable(device: str | torch.device) -> torch.device:
    """Return a device. Raises UserError for one that is not here."""
    try:
        there = torch.zeros(1, device=device)
        float(there)  # what has no memory gives none back
        return there.device
    except (RuntimeError, AssertionError, ImportError):
        raise UserError(
            f"device {str(device)!r}: there is no such device here; `cpu` is everywhere"
        ) from None


def load(path: str | Path, plugins: str | Path | Iterable[str | Path] = ()) -> PackedNetwork:
    """Open a packed network, a `network.safetensors` of a run.

    plugins: a Python file, the name of an installed module, or several of them, that have the
    plug-ins that its network or its metrics are: docs/plugins.md. They are run; the packed file
    itself runs nothing. Raises PackingError, which says what is wrong.
    """
    add_plugins(plugins)
    return PackedNetwork(packed_file.open_packed(Path(path)))
