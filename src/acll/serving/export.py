"""One task, out of a packed network, for other programs: ONNX, torch.export, a small packed file.

What is exported takes images float [N, C, *image_size] in which white is 1 and gives logits whose
softmax is calibrated: normalisation and temperature are part of it. It is compacted first (see
`acll.serving.compact`), and compared with the network that it came from when it is written.
"""

import contextlib
import copy
import io
import json
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from acll.data.batches import Split, normalised
from acll.data.prepared import TaskInfo
from acll.errors import UserError
from acll.files import written
from acll.packing import packed_file
from acll.packing.load import loaded, task_info_of
from acll.packing.ownership import TaskRecord
from acll.serving.compact import Compacted, compacted, program
from acll.training.calibration import Calibrated
from acll.training.evaluate import evaluated
from acll.training.metrics import score

Precision = Literal["float32", "float16", "int8"]
EXPORT_SUFFIXES = (".onnx", ".pt2", ".safetensors")
# images of an example: torch.export takes a batch of 1 for a fixed size
_BATCH = 2
_MOST_ONNX = 2**31 - 2**24  # bytes of weights; more would go into a second file
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Exported:
    """What has been written, compared with the packed network that it came from."""

    bytes: int
    difference: float  # the largest one of a logit
    largest: float  # logit, as an absolute value
    compacted: Compacted | None  # what was removed
    scores: tuple[float, float] | None  # of both, where a validation split was given


Computed = Callable[[Tensor], Tensor]  # images → logits


class Whole(nn.Module):
    """A network with its normalisation and its temperature.

    Images float [N, C, H, W] in which white is 1 → logits.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, record: TaskRecord) -> None:
        super().__init__()
        self.network = Calibrated(network, record.temperature)
        self.register_buffer("mean", torch.tensor(record.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(record.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise, go through the network, and divide by the temperature."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class _Half(nn.Module):
    """A network that computes in half precision, and takes and gives floats."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # a copy, since the original is what it is compared with
        self.network = copy.deepcopy(network).half()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.half()).float()
        return logits


class OnnxSession(nn.Module):
    """An ONNX file that `export` wrote, as a module on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images float [N, C, H, W] in which white is 1."""
        return torch.from_numpy(self._session.run(None, {"images": images.numpy()})[0])


class _Compared(nn.Module):
    """A module that computes what `found` does, and keeps how far that is from `expected`.

    It wraps exported programs, too, which raise where they are told to be in evaluation mode.
    """

    def __init__(self, expected: Computed, found: Computed) -> None:
        super().__init__()
        # in a tuple, since modules would become parts of this one
        self._functions = (expected, found)
        self.difference = self.largest = 0.0

    def forward(self, images: Tensor) -> Tensor:
        expected, found = (function(images) for function in self._functions)
        difference = float((found - expected).abs().max())
        if not math.isfinite(difference):
            raise UserError(
                "what is written gives values that are not finite; half precision may be too "
                "little for it"
            )
        self.difference = max(self.difference, difference)
        self.largest = max(self.largest, float(expected.abs().max()))
        return found


@torch.no_grad()
def export_task(
    opened: packed_file.PackedFile,
    task: str,
    path: Path,
    precision: Precision,
    validation: Split | None,
) -> Exported:
    """Write one task of a packed network; the ending of the path says in which format.

    validation: images on which the result is compared with the network. Raises UserError for an
    ending or a precision that cannot be, PackingError for a task that was not learned.
    """
    _refuse(path, precision)
    opened.refuse_itself(path)
    record = opened.record(task)
    info = task_info_of(record)
    whole = Whole(loaded(opened, task), record).eval()
    plain = replace(info, mean=(0.0,) * len(info.mean), std=(1.0,) * len(info.std))
    example = _example(plain, validation)
    small = None if path.suffix == ".safetensors" else compacted(whole, example)
    with written(path) as beside:
        if small is None:
            packed_file.write_packed(beside, opened.alone(task))
            read = _of_packed(beside, task)
        elif path.suffix == ".pt2":
            read = _write_program(beside, _in_precision(small, precision), example)
        else:
            read = _write_onnx(
                beside, _in_precision(small, precision), example, info, precision == "int8"
            )
        compared, scores = _Compared(whole, read), None
        if validation is None:
            compared(example)
        else:
            of_both = [
                score(evaluated(one, validation, plain, _CPU, record.metric))
                for one in (whole, compared)
            ]
            scores = (of_both[0], of_both[1])
    return Exported(path.stat().st_size, compared.difference, compared.largest, small, scores)


def _refuse(path: Path, precision: Precision) -> None:
    """Raise UserError for an ending that is not known, or that the precision cannot have."""
    if path.suffix not in EXPORT_SUFFIXES:
        raise UserError(
            f"{path}: the ending says what is written; it must be one of "
            f"{', '.join(EXPORT_SUFFIXES)}"
        )
    suffixes = {"float32": EXPORT_SUFFIXES, "float16": (".onnx", ".pt2"), "int8": (".onnx",)}
    possible = suffixes[precision]
    if path.suffix not in possible:
        raise UserError(f"{path}: {precision} can be written to {' or '.join(possible)} only")


def _example(plain: TaskInfo, validation: Split | None) -> Tensor:
    """Return images [2, C, H, W] in which white is 1: of the task, or noise.

    plain: describes the task with a normalisation that does nothing.
    """
    if validation is not None:
        return normalised(validation.images[:_BATCH], plain, _CPU)
    size = (_BATCH, len(plain.mean), *plain.image_size)
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def _in_precision(small: Compacted, precision: Precision) -> nn.Module:
    return _Half(small.network) if precision == "float16" else small.network


def _of_packed(path: Path, task: str) -> Computed:
    again = packed_file.open_packed(path)
    return Whole(loaded(again, task), again.record(task))


def _write_program(path: Path, module: nn.Module, example: Tensor) -> Computed:
    """Write a program of PyTorch; return it as read back."""
    content = io.BytesIO()  # torch wants files that are called .pt2, and this one is not yet
    torch.export.save(program(module, example), content)
    path.write_bytes(content.getbuffer())
    return torch.export.load(content).module()


def _write_onnx(
    path: Path, module: nn.Module, example: Tensor, info: TaskInfo, int8: bool
) -> Computed:
    """Write ONNX, checked, with what a user has to know in its metadata; return it as read back.

    Raises UserError for a network that is too large for one file.
    """
    import onnx

    total = sum(value.nbytes for value in module.state_dict().values())
    if total > _MOST_ONNX:
        raise UserError(
            f"{info.name} has {total:,} bytes of weights, and an ONNX file holds 2 GB: write .pt2"
        )
    # the exporter prints its progress
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program(module, example),
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
        assert made is not None
        made.save(path)
    if int8:
        _quantise(path)
    model = onnx.load(path)
    _name_batch(model.graph)
    known = {
        "task": info.name,
        "kind": info.kind,
        "classes": json.dumps(info.classes, ensure_ascii=False),
    }
    onnx.helper.set_model_props(model, known | {"input": _input_of(info)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return OnnxSession(path)


def _name_batch(graph: Any) -> None:
    """Call the number of images N in all shapes, as the metadata does."""
    given = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert given
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param == given:
                side.dim_param = "N"


def _input_of(info: TaskInfo) -> str:
    """Return what the network takes, in words."""
    shape = ", ".join(map(str, ("N", len(info.mean), *info.image_size)))
    return (
        f"float [{shape}], white is 1; not normalised; made of this size bilinearly with "
        "anti-aliasing"
    )


def _quantise(path: Path) -> None:
    """Make weights 8 bits, and activations 8 bits by their range at run time; in place."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    # the library logs the advice to prepare the model, which has been done
    logging.disable(max(before, logging.WARNING))
    try:
        quantize_dynamic(
            path,
            path,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            weight_type=QuantType.QUInt8,
        )
    finally:
        logging.disable(before)
