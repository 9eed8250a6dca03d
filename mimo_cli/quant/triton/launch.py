"""How packed kernels are launched: places of a layout in units of what the kernels load, and sizes of their steps."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from mimo_cli.errors import CapacityError
from mimo_cli.quant.packed import PackedFormat
from mimo_cli.quant.slot_layout import MatrixLayout

FAST_CAPABILITY = (8, 9)
"""Compute capability from which devices have the instructions that decode e4m3."""

_UNIT_TYPES: dict[PackedFormat, torch.dtype] = {
    "int4": torch.int32,
    "mxfp4": torch.int32,
    "int8": torch.int32,
    "bf16": torch.int32,
    "fp8": torch.int16,
}
_SCALE_TYPES: dict[PackedFormat, torch.dtype] = {
    "int4": torch.float16,
    "int8": torch.float16,
    "mxfp4": torch.uint8,
    "fp8": torch.float32,
    "bf16": torch.uint8,  # there are none
}


TILE: dict[PackedFormat, tuple[int, int]] = {
    "int4": (16, 4),
    "mxfp4": (16, 4),
    "int8": (32, 4),
    "bf16": (64, 4),
    "fp8": (32, 8),
}
"""Lines of a span and units of 16 bytes, see `blocks`."""


@dataclass(frozen=True)
class LaunchShape:
    """spans: taken together by one step of a program, at most; warps: of a program; stages: steps loaded ahead."""

    spans: int
    warps: int
    stages: int = 1


class Places(NamedTuple):
    """A matrix of a record: codes and scales, and from one block or span to the next, all in elements."""

    codes: int
    scales: int
    block_units: int
    block_scales: int
    span_units: int
    span_scales: int


def is_interpreted() -> bool:
    """Tell whether Triton was told, before it was imported, to interpret kernels on the CPU."""
    return bool(triton.knobs.runtime.interpret)


def is_fast(device: torch.device) -> bool:
    """Tell whether kernels may use PTX instructions of devices of FAST_CAPABILITY and later."""
    if is_interpreted() or device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device) >= FAST_CAPABILITY


def unit_view(data: Tensor, kind: PackedFormat) -> Tensor:
    """See packed bytes [..., n] as what a kernel loads codes by; the same memory."""
    return data.view(_UNIT_TYPES[kind])


def scale_view(data: Tensor, kind: PackedFormat) -> Tensor:
    """See packed bytes [..., n] as scales; the same memory."""
    return data.view(_SCALE_TYPES[kind])


def places(matrix: MatrixLayout, kind: PackedFormat) -> Places:
    """Return a layout in elements. Raises ValueError where a thread's 16 bytes would not lie at a multiple of 16."""
    if any(value % 16 for value in (matrix.codes_offset, matrix.block_bytes, matrix.span_bytes)):
        raise ValueError(f"codes at byte {matrix.codes_offset} by {matrix.span_bytes}: multiples of 16 expected")
    unit, scale = _UNIT_TYPES[kind].itemsize, _SCALE_TYPES[kind].itemsize
    return Places(
        matrix.codes_offset // unit,
        matrix.scales_offset // scale,
        matrix.block_bytes // unit,
        matrix.block_bytes // scale,
        matrix.span_bytes // unit,
        matrix.scales_stride // scale,
    )


def spans_per_step(spans: int, at_most: int) -> int:
    """Return the largest power of two that divides `spans` and is no more than `at_most`."""
    step = 1
    while step * 2 <= at_most and spans % (step * 2) == 0:
        step *= 2
    return step


def require_slots(slots: Tensor, record_bytes: int) -> None:
    """Raise CapacityError unless `slots` uint8 [S, bytes] are records at multiples of 16 bytes, side by side."""
    sound = slots.dtype == torch.uint8 and slots.dim() == 2 and slots.is_contiguous()
    if not sound or slots.shape[1] < record_bytes or slots.shape[1] % 16 or slots.data_ptr() % 16:
        raise CapacityError(
            f"slots {slots.dtype} {list(slots.shape)} do not hold records of {record_bytes} bytes",
            hint="contiguous uint8 [slots, bytes], with a multiple of 16 bytes each, expected",
        )
