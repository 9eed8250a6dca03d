"""The native kernels as Python objects: checked tensors in, float32 tensors out.

Where there are no native kernels `load_kernels` returns None and `missing_reason` says why (availability.py).
Letters: T tokens, O rows, I columns, H hidden size (in attention: query heads), A experts per token.
"""

import functools
import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mimo_cli.quant.availability import ISA_VARIABLE as ISA_VARIABLE
from mimo_cli.quant.availability import missing_reason as missing_reason
from mimo_cli.quant.availability import usable_cores, wanted_isa
from mimo_cli.quant.packed import FORMATS, PackedShape

try:
    from mimo_cli.quant import _native
except ImportError:
    _native = None  # type: ignore[assignment]

Precision = Literal["int8", "exact", "bfloat16"]
"""Of the activations. int8: 8 bits for integer formats, the fastest and the only lossy one. exact: float32's 24 bits.
bfloat16: rounded to bfloat16 for fp8 and bf16 weights, as a bfloat16 network has them; 16 bits for integer formats."""

_PRECISIONS: dict[Precision, int] = {"int8": 0, "exact": 1, "bfloat16": 2}
FEW_TOKENS = 8
"""Tokens for which attention and routers run on the kernels: a decoded one, or a draft that is verified. More are
faster by torch's matrix products."""

MAX_HEAD_WIDTH = 1024
"""Of one attention head, in `rotate` and `attend`."""


class ExpertPairs(NamedTuple):
    """Which token goes to which expert: tokens int32 [P], places int32 [P] in a list, weights float32 [P]."""

    tokens: Tensor
    places: Tensor
    weights: Tensor


class Heads(NamedTuple):
    """H query heads over K key/value heads; D the width of a query or key, Dv of a value."""

    queries: int
    kv_heads: int
    width: int
    value_width: int

    @property
    def columns(self) -> int:
        """Width of a fused projection: all queries, all keys, all values."""
        return (self.queries + self.kv_heads) * self.width + self.kv_heads * self.value_width


class RotatedHeads(NamedTuple):
    """query float32 [T, H, D]; keys [K, T, D] and values [K, T, Dv] in the dtype of the projection."""

    query: Tensor
    keys: Tensor
    values: Tensor


class Product(NamedTuple):
    """A packed matrix to multiply with: data uint8 [shape.nbytes], and the precision of the activations."""

    shape: PackedShape
    data: Tensor
    precision: Precision


class Norm(NamedTuple):
    """An RMSNorm: weight [H], of the dtype of the rows."""

    weight: Tensor
    eps: float


class KernelUse(NamedTuple):
    """Uses of the kernels since the start: products with weights, bytes of weights and scales these read, and seconds
    inside all kernels, attention and norms among them."""

    calls: int = 0
    seconds: float = 0.0
    weight_bytes: int = 0

    def plus(self, other: "KernelUse") -> "KernelUse":
        """Return both together."""
        return KernelUse(self.calls + other.calls, self.seconds + other.seconds, self.weight_bytes + other.weight_bytes)

    def since(self, earlier: "KernelUse") -> "KernelUse":
        """Return what was used after an earlier moment."""
        return self.plus(KernelUse(-earlier.calls, -earlier.seconds, -earlier.weight_bytes))


class Kernels:
    """Threads and kernels for one instruction set. Calls from several Python threads take turns.

    `use` sums up the products computed since the start.
    """

    def __init__(self, isa: str, threads: int) -> None:
        self._compute: Any = _native.Compute(isa, threads)
        self.isa: str = self._compute.isa
        self.threads = threads
        self.use = KernelUse()

    @property
    def calls(self) -> int:
        """Products computed since the start."""
        return self.use.calls

    def pack(self, shape: PackedShape, data: Tensor, stream: int, codes: Tensor, scales: Tensor) -> None:
        """Write one matrix into a packed stream, in place.

        data uint8 [shape.nbytes]; codes [rows, cols]: int8 values (int4, int8), uint8 e2m1 codes one per byte (mxfp4),
        float8 or its bytes (fp8), bfloat16 (bf16). scales: float16 [rows, groups] (int4, int8), uint8 [rows, groups]
        (mxfp4), float32 [blocks of 16 rows, spans of 128 columns] (fp8); any empty tensor for bf16.
        """
        expect_tensor(data, torch.uint8, (shape.nbytes,), "packed stream")
        if tuple(codes.shape) != (shape.rows, shape.cols) or codes.element_size() != (
            2 if shape.format == "bf16" else 1
        ):
            raise ValueError(
                f"codes of {shape} must be {shape.rows} x {shape.cols}, found {tuple(codes.shape)} {codes.dtype}"
            )
        if shape.format == "fp8":
            expect_tensor(scales, torch.float32, (shape.blocks, shape.spans), "scales")
        elif shape.format != "bf16":
            kind = torch.uint8 if shape.format == "mxfp4" else torch.float16
            expect_tensor(scales, kind, (shape.rows, -(-shape.cols // shape.group)), "scales")
        codes, scales = codes.contiguous(), scales.contiguous()
        self._compute.pack(*_shape(shape), shape.streams, data.data_ptr(), stream, codes.data_ptr(), scales.data_ptr())

    def pack_nibbles(self, shape: PackedShape, data: Tensor, stream: int, nibbles: Tensor, scales: Tensor) -> None:
        """Write an mxfp4 matrix as released into a packed stream, in place.

        data uint8 [shape.nbytes]; nibbles uint8 [rows, cols / 2], the low half is the even column; scales uint8
        [rows, cols / 32].
        """
        expect_tensor(data, torch.uint8, (shape.nbytes,), "packed stream")
        nibbles, scales = nibbles.contiguous(), scales.contiguous()
        expect_tensor(nibbles, torch.uint8, (shape.rows, shape.cols // 2), "nibbles")
        expect_tensor(scales, torch.uint8, (shape.rows, shape.cols // 32), "scales")
        ends = nibbles.data_ptr(), scales.data_ptr()
        self._compute.pack_nibbles(shape.rows, shape.cols, shape.streams, data.data_ptr(), stream, *ends)

    def linear(self, shape: PackedShape, data: Tensor, x: Tensor, precision: Precision) -> Tensor:
        """Return x W^T: x float32 [T, I] -> float32 [T, O]."""
        weight_bytes = shape.nbytes
        expect_tensor(data, torch.uint8, (weight_bytes,), "packed stream")
        x = x.contiguous()
        expect_tensor(x, torch.float32, (len(x), shape.cols), "input")
        y = torch.empty(len(x), shape.rows)
        if len(x):
            started = time.perf_counter()
            self._compute.linear(
                *_shape(shape), data.data_ptr(), x.data_ptr(), y.data_ptr(), len(x), _PRECISIONS[precision]
            )
            self.count(started, weight_bytes)
        return y

    def linear_cells(self, product: Product, x: Tensor) -> Tensor:
        """Return x W^T for a few rows [T, I] of float32 or bfloat16, rounded to that dtype: [T, O]."""
        shape, data, precision = product
        tokens, weight_bytes = len(x), shape.nbytes
        expect_tensor(data, torch.uint8, (weight_bytes,), "packed stream")
        expect_tensor(x, _float_dtype(x), (tokens, shape.cols), "input")
        y = torch.empty(tokens, shape.rows, dtype=x.dtype)
        started = time.perf_counter()
        self._compute.linear_cells(
            *(*_shape(shape), data.data_ptr(), x.data_ptr(), x.dtype == torch.bfloat16, y.data_ptr(), tokens),
            _PRECISIONS[precision],
        )
        self.count(started, weight_bytes)
        return y

    def moe(
        self,
        up_shape: PackedShape,
        gate_up: Sequence[int],
        down: Sequence[int],
        pairs: ExpertPairs,
        x: Tensor,
        out: Tensor,
        precision: Precision,
    ) -> None:
        """Add some experts of one layer to `out` in place: x float32 [T, H], out float32 [T, H].

        up_shape: gate and up [I, H] in two streams; down is [H, I] in the same format. gate_up, down: addresses of the
        streams of the experts, which must stay alive. A token's experts are added in the order of those lists, so the
        answer depends neither on where a stream lies nor on how a layer is cut into several calls.
        """
        expect_tensor(x, torch.float32, (len(x), up_shape.cols), "input")
        expect_tensor(out, torch.float32, tuple(x.shape), "output")
        for column, kind in ((pairs.tokens, torch.int32), (pairs.places, torch.int32), (pairs.weights, torch.float32)):
            expect_tensor(column, kind, (len(pairs.tokens),), "pairs")
        if not len(pairs.tokens):
            return
        down_shape = PackedShape(up_shape.format, up_shape.group, up_shape.cols, up_shape.rows)
        addresses = torch.tensor([*gate_up, *down], dtype=torch.int64)
        weight_bytes = len(gate_up) * (up_shape.nbytes + down_shape.nbytes)
        started = time.perf_counter()
        self._compute.moe(
            *(FORMATS.index(up_shape.format), up_shape.group, up_shape.cols, up_shape.rows),
            *(len(gate_up), addresses.data_ptr(), addresses[len(gate_up) :].data_ptr()),
            *(pairs.tokens.data_ptr(), pairs.places.data_ptr(), pairs.weights.data_ptr(), len(pairs.tokens)),
            *(len(x), x.data_ptr(), out.data_ptr(), _PRECISIONS[precision]),
        )
        self.count(started, weight_bytes)

    def rotate(self, qkv: Tensor, cos: Tensor, sin: Tensor, heads: Heads, value_scale: float) -> RotatedHeads:
        """Split rows of a fused projection, qkv [T, (H + K) D + K Dv] float32 or bfloat16, into heads.

        Queries and keys are rotated by cos, sin float32 of T * R/2 elements (dimensions from R on pass through), values
        scaled; all are rounded to the dtype of qkv at the places where torch would round them.
        """
        tokens = len(qkv)
        expect_tensor(qkv, _float_dtype(qkv), (tokens, heads.columns), "fused projection")
        half = cos.numel() // tokens
        _expect_turns(cos, sin, half, heads)
        query = torch.empty(tokens, heads.queries, heads.width)
        keys = torch.empty(heads.kv_heads, tokens, heads.width, dtype=qkv.dtype)
        values = torch.empty(heads.kv_heads, tokens, heads.value_width, dtype=qkv.dtype)
        cos, sin = cos.contiguous(), sin.contiguous()
        started = time.perf_counter()
        self._compute.rotate(
            *(qkv.data_ptr(), qkv.dtype == torch.bfloat16, tokens, *heads, half, cos.data_ptr(), sin.data_ptr()),
            *(value_scale, query.data_ptr(), keys.data_ptr(), values.data_ptr()),
        )
        self.count(started)
        return RotatedHeads(query, keys, values)

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, *, offset: int, window: int | None, sinks: Tensor | None
    ) -> Tensor:
        """Attend causally from query float32 [T, H, D] to keys [K, S, D], values [K, S, Dv]; float32 [T, H, Dv].

        Keys and values are float32 or bfloat16, contiguous but for the step from head to head; query t stands at key
        `offset + t`. Everything is computed in float32. What a query gets does not depend on the other queries, on the
        threads, or on where in memory its keys stand. window and sinks [H] are those of model.attention.attend.
        """
        heads = Heads(query.shape[1], keys.shape[0], query.shape[2], values.shape[-1])
        expect_tensor(query, torch.float32, (len(query), heads.queries, heads.width), "query")
        _expect_seen(keys, values, heads, offset, len(query))
        logits = sink_logits(sinks, heads.queries)
        out = torch.empty(len(query), heads.queries, heads.value_width)
        started = time.perf_counter()
        self._compute.attend(
            *(len(query), *heads, query.data_ptr(), keys.data_ptr(), values.data_ptr()),
            *(keys.stride(0), values.stride(0)),
            *(keys.dtype == torch.bfloat16, offset, -1 if window is None else window, heads.width**-0.5),
            *(0 if logits is None else logits.data_ptr(), out.data_ptr()),
        )
        self.count(started)
        return out

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        """Return x / rms(x) rounded, times the weight, for a few rows [T, H] of float32 or bfloat16."""
        tokens, size = x.shape
        expect_tensor(x, _float_dtype(x), (tokens, size), "rows")
        expect_tensor(norm.weight, x.dtype, (size,), "norm")
        out = torch.empty_like(x)
        started = time.perf_counter()
        self._compute.norm(
            *(x.data_ptr(), x.dtype == torch.bfloat16, tokens, size, norm.weight.data_ptr(), norm.eps, out.data_ptr())
        )
        self.count(started)
        return out

    def attention_block(
        self,
        x: Tensor,
        norms: tuple[Norm, Norm],
        products: tuple[Product, Product],
        rotary: tuple[Tensor, Tensor],
        heads: Heads,
        value_scale: float,
        seen: tuple[Tensor, Tensor],
        *,
        window: int | None,
        sinks: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Do norm, fused projection, `rotate`, `attend`, output projection, the sum with x and its norm in one call.

        x [T, hidden]; rotary: cos and sin of T * R/2 elements; seen: keys [K, S, D] and values [K, S, Dv] of the dtype
        of x, whose last T places are written. Returns the sum and its norm, bit for bit what the calls give one after
        the other.
        """
        (tokens, hidden), (qkv, output), (cos, sin), (keys, values) = x.shape, products, rotary, seen
        half, offset = cos.numel() // tokens, keys.shape[1] - tokens
        qkv_bytes, output_bytes, logits = qkv.shape.nbytes, output.shape.nbytes, sink_logits(sinks, heads.queries)
        expect_tensor(x, _float_dtype(x), (tokens, hidden), "rows")
        for norm, product, weight_bytes in zip(norms, products, (qkv_bytes, output_bytes), strict=True):
            expect_tensor(norm.weight, x.dtype, (hidden,), "norm")
            expect_tensor(product.data, torch.uint8, (weight_bytes,), "packed stream")
        if (qkv.shape.rows, qkv.shape.cols) != (heads.columns, hidden):
            raise ValueError(f"a projection of {qkv.shape} does not make {heads}")
        if (output.shape.rows, output.shape.cols) != (hidden, heads.queries * heads.value_width):
            raise ValueError(f"a projection of {output.shape} does not take {heads}")
        _expect_turns(cos, sin, half, heads)
        _expect_seen(keys, values, heads, offset, tokens)
        if keys.dtype != x.dtype:
            raise ValueError(f"rows of {x.dtype} are not written among keys of {keys.dtype}")
        total, normed = torch.empty_like(x), torch.empty_like(x)
        started = time.perf_counter()
        self._compute.attention_block(
            *(x.data_ptr(), x.dtype == torch.bfloat16, tokens, hidden),
            *(norms[0].weight.data_ptr(), norms[1].weight.data_ptr(), norms[0].eps, norms[1].eps),
            *product_numbers(qkv),
            *product_numbers(output),
            *(*heads, half, cos.data_ptr(), sin.data_ptr(), value_scale),
            *(keys.data_ptr(), values.data_ptr(), keys.stride(0), values.stride(0)),
            *(offset, -1 if window is None else window, heads.width**-0.5),
            *(0 if logits is None else logits.data_ptr(), total.data_ptr(), normed.data_ptr()),
        )
        self.count(started, qkv_bytes + output_bytes, products=2)
        return total, normed

    def feed_forward(self, products: tuple[Product, Product, Product], x: Tensor) -> Tensor:
        """Return down(silu(gate x) * up x) for a few rows [T, H] of float32 or bfloat16; products: gate, up, down.

        Rounded to the dtype after every operation, as torch does.
        """
        (tokens, hidden), width = x.shape, products[0].shape.rows
        expect_tensor(x, _float_dtype(x), (tokens, hidden), "rows")
        weight_bytes = 0
        for product, size in zip(products, ((width, hidden), (width, hidden), (hidden, width)), strict=True):
            if (product.shape.rows, product.shape.cols) != size:
                raise ValueError(f"{product.shape} where {size} is expected")
            expect_tensor(product.data, torch.uint8, (product.shape.nbytes,), "packed stream")
            weight_bytes += product.shape.nbytes
        out = torch.empty_like(x)
        started = time.perf_counter()
        self._compute.feed_forward(
            *(x.data_ptr(), x.dtype == torch.bfloat16, tokens, hidden, width),
            *(number for product in products for number in product_numbers(product)),
            out.data_ptr(),
        )
        self.count(started, weight_bytes, products=3)
        return out

    def no_layers(self, last: Norm) -> Any:
        """Return native layers, none yet, before a last norm, for `LayerRun`."""
        weight = last.weight
        return _native.Layers(len(weight), weight.dtype == torch.bfloat16, weight.data_ptr(), last.eps)

    def run_layers(self, layers: Any, *arguments: int) -> int:
        """Run native `layers` for `LayerRun`, which checks the arguments and counts; returns where it stopped."""
        return int(self._compute.run_layers(layers, *arguments))

    def route(
        self, x: Tensor, weight: Tensor, bias: Tensor, active: int, *, normalizes: bool, factor: float
    ) -> tuple[Tensor, Tensor]:
        """Choose experts for a few rows [T, H] of float32 or bfloat16: ids int64 [T, A], best first, and their weights.

        weight float32 [E, H]; bias float32 [E] takes part in the choice alone. A row depends on no other.
        """
        tokens, hidden = x.shape
        experts = len(weight)
        expect_tensor(x, _float_dtype(x), (tokens, hidden), "rows")
        expect_tensor(weight, torch.float32, (experts, hidden), "weight")
        expect_tensor(bias, torch.float32, (experts,), "bias")
        if not 0 < active <= experts:
            raise ValueError(f"{active} of {experts} experts cannot be chosen")
        ids, weights = torch.empty(tokens, active, dtype=torch.int64), torch.empty(tokens, active)
        started = time.perf_counter()
        self._compute.route(
            *(x.data_ptr(), x.dtype == torch.bfloat16, tokens, hidden, weight.data_ptr(), bias.data_ptr(), experts),
            *(active, normalizes, factor, ids.data_ptr(), weights.data_ptr()),
        )
        self.count(started)
        return ids, weights

    def count(self, started: float, weight_bytes: int = 0, products: int | None = None) -> None:
        """Count a call that has just ended: one product if it read weights, or so many."""
        seconds = time.perf_counter() - started
        calls, before_s, read_bytes = self.use
        self.use = KernelUse(calls + (products or bool(weight_bytes)), before_s + seconds, read_bytes + weight_bytes)

    def dot_probe(self, count: int) -> int:
        """Run `count` dot product instructions between registers on every thread; return the multiplications done."""
        return int(self._compute.dot_probe(count))

    def read_probe(self, data: Tensor, threads: int) -> None:
        """Load every byte of a tensor with plain vector loads: what memory can give, measured beside the kernels."""
        self._compute.read_probe(data.data_ptr(), data.nbytes, threads)


def load_kernels(threads: int | None = None) -> Kernels | None:
    """Return the kernels for this machine, or None where there are none. `threads` None: all physical cores allowed."""
    if missing_reason():
        return None
    return _open_kernels(wanted_isa(), threads or usable_cores())


@functools.cache
def _open_kernels(isa: str, threads: int) -> Kernels:
    """Open each combination once per process: every one has threads of its own."""
    return Kernels(isa, threads)


def _shape(shape: PackedShape) -> tuple[int, int, int, int]:
    return FORMATS.index(shape.format), shape.group, shape.rows, shape.cols


def precision_number(precision: Precision) -> int:
    """Return what native code calls a precision."""
    return _PRECISIONS[precision]


def product_numbers(product: Product) -> tuple[int, int, int, int]:
    """Return what native code is told of a product: format, group, address, precision."""
    shape, data, precision = product
    return FORMATS.index(shape.format), shape.group, data.data_ptr(), _PRECISIONS[precision]


def _expect_turns(cos: Tensor, sin: Tensor, half: int, heads: Heads) -> None:
    if max(heads.width, heads.value_width) > MAX_HEAD_WIDTH or 2 * half > heads.width or cos.shape != sin.shape:
        raise ValueError(f"heads of {heads.width} and {heads.value_width} with {2 * half} rotated are not implemented")


def _expect_seen(keys: Tensor, values: Tensor, heads: Heads, offset: int, tokens: int) -> None:
    for name, stored in (("keys", keys), ("values", values)):
        if stored.dtype != _float_dtype(keys) or stored.stride()[1:] != (stored.shape[2], 1):
            raise ValueError(f"{name} must be float32 or bfloat16 with rows one behind the other")
    is_narrow = heads.width <= MAX_HEAD_WIDTH and heads.queries % heads.kv_heads == 0
    if not is_narrow or offset < 0 or offset + tokens > min(keys.shape[1], values.shape[1]):
        raise ValueError(f"{tokens} queries at key {offset} do not fit {list(keys.shape)} keys")


def sink_logits(sinks: Tensor | None, count: int) -> Tensor | None:
    """Return sinks [count] as the kernels read them."""
    if sinks is None:
        return None
    logits = sinks.detach().float().contiguous()
    expect_tensor(logits, torch.float32, (count,), "sinks")
    return logits


def _float_dtype(tensor: Tensor) -> torch.dtype:
    return torch.bfloat16 if tensor.dtype == torch.bfloat16 else torch.float32


def expect_tensor(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], what: str) -> None:
    """Raise ValueError for a tensor that a kernel would misread."""
    if (
        tensor.dtype != dtype
        or tuple(tensor.shape) != shape
        or not tensor.is_contiguous()
        or tensor.device.type != "cpu"
    ):
        raise ValueError(
            f"{what} must be contiguous {dtype} {list(shape)} on the CPU, found {tensor.dtype} {list(tensor.shape)}"
        )
