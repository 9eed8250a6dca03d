"""A packed block of 16 rows times a vector, as functions that run on the device.

A step takes S spans of one block as a tile [M, U]: M = 4 L S places of 16 bytes, U units each, what a thread loads at
once. Places are counted as they lie in memory (four of a line, L lines of a span), in one dimension, because how Triton
spreads several of them over neighbouring threads is not the same in all its versions. A line is 64 bytes:

    int4, mxfp4   16 lines of 8 columns; a unit is the 32-bit word of a row: low halves of its bytes, then high halves
    int8          32 lines of 4 columns; a unit is the word of a row
    bf16          64 lines of 2 columns; a unit is the word of a row
    fp8           32 lines of 4 columns; a unit is 16 bits, two columns of a row: four rows, then their other columns

The threads of a warp read 512 bytes side by side, and every thread has the inputs of its few columns in registers.
Codes become float32 without an integer-to-float conversion, of which the device has few: a code is put
into the mantissa of a number between 1 and 2, and what that adds is taken off once per line. Where `fast` is set, PTX
instructions decode two or more codes at once; otherwise arithmetic that any device, and Triton's interpreter, can do.
Products are summed in float32. Triton wants what is constant written as `tl.constexpr` arguments.
"""

import triton
import triton.language as tl

_MXFP4_WORD = """
{
    .reg .b32 low, high, bits;
    .reg .b16 pair<4>;
    .reg .b32 two<4>;
    .reg .b16 one<8>;
    shl.b32 low, $8, 4;
    and.b32 low, low, 0x80808080;
    shl.b32 bits, $8, 2;
    lop3.b32 low, bits, 0x1C1C1C1C, low, 0xEA;
    and.b32 high, $8, 0x80808080;
    shr.u32 bits, $8, 2;
    lop3.b32 high, bits, 0x1C1C1C1C, high, 0xEA;
    mov.b32 {pair0, pair1}, low;
    mov.b32 {pair2, pair3}, high;
    cvt.rn.f16x2.e4m3x2 two0, pair0;
    cvt.rn.f16x2.e4m3x2 two1, pair1;
    cvt.rn.f16x2.e4m3x2 two2, pair2;
    cvt.rn.f16x2.e4m3x2 two3, pair3;
    mov.b32 {one0, one1}, two0;
    mov.b32 {one2, one3}, two1;
    mov.b32 {one4, one5}, two2;
    mov.b32 {one6, one7}, two3;
    cvt.f32.f16 $0, one0;
    cvt.f32.f16 $1, one1;
    cvt.f32.f16 $2, one2;
    cvt.f32.f16 $3, one3;
    cvt.f32.f16 $4, one4;
    cvt.f32.f16 $5, one5;
    cvt.f32.f16 $6, one6;
    cvt.f32.f16 $7, one7;
}
"""
"""Eight e2m1 codes as float32, 64 times too small: with the bits of a code in the places of e4m3, whose bias is 7
instead of 1, the instruction that decodes e4m3 does the work. Outputs: columns 0 to 7."""

_INT4_WORD = """
{
    .reg .b32 two<4>, odd;
    .reg .b32 bias, sixteenth, offset;
    .reg .b16 one<8>;
    mov.b32 bias, 0x64086408;
    mov.b32 sixteenth, 0x2C002C00;
    mov.b32 offset, 0xD480D480;
    shr.u32 odd, $8, 8;
    lop3.b32 two0, $8, 0x000F000F, 0x64006400, 0xEA;
    lop3.b32 two1, odd, 0x000F000F, 0x64006400, 0xEA;
    lop3.b32 two2, $8, 0x00F000F0, 0x64006400, 0xEA;
    lop3.b32 two3, odd, 0x00F000F0, 0x64006400, 0xEA;
    sub.rn.f16x2 two0, two0, bias;
    sub.rn.f16x2 two1, two1, bias;
    fma.rn.f16x2 two2, two2, sixteenth, offset;
    fma.rn.f16x2 two3, two3, sixteenth, offset;
    mov.b32 {one0, one2}, two0;
    mov.b32 {one1, one3}, two1;
    mov.b32 {one4, one6}, two2;
    mov.b32 {one5, one7}, two3;
    cvt.f32.f16 $0, one0;
    cvt.f32.f16 $1, one1;
    cvt.f32.f16 $2, one2;
    cvt.f32.f16 $3, one3;
    cvt.f32.f16 $4, one4;
    cvt.f32.f16 $5, one5;
    cvt.f32.f16 $6, one6;
    cvt.f32.f16 $7, one7;
}
"""
"""Eight int4 codes less 8 as float32: in a float16 between 1024 and 2048 a code is the end of the mantissa, or 16 times
that; two at a time the rest is taken off, exactly. Outputs: columns 0 to 7."""

_FP8_PAIRS = """
{
    .reg .b16 pair<2>;
    .reg .b32 two<2>;
    .reg .b16 one<4>;
    mov.b32 {pair0, pair1}, $4;
    cvt.rn.f16x2.e4m3x2 two0, pair0;
    cvt.rn.f16x2.e4m3x2 two1, pair1;
    mov.b32 {one0, one1}, two0;
    mov.b32 {one2, one3}, two1;
    cvt.f32.f16 $0, one0;
    cvt.f32.f16 $1, one2;
    cvt.f32.f16 $2, one1;
    cvt.f32.f16 $3, one3;
}
"""
"""Two units of two e4m3 codes as float32. Outputs: the first columns of both units, then the second ones."""

MXFP4_WORD = tl.constexpr(_MXFP4_WORD)
INT4_WORD = tl.constexpr(_INT4_WORD)
FP8_PAIRS = tl.constexpr(_FP8_PAIRS)


@triton.jit
def one_input(
    x: tl.tensor,
    norm: tl.tensor,
    rms: tl.tensor,
    at: tl.tensor,
    cols: tl.constexpr,
    padded: tl.constexpr,
    normed: tl.constexpr,
) -> tl.tensor:
    """Load columns `at` [S, L] of a vector as float32 [S, L, 1, 1]; zero beyond `cols`.

    normed: as an RMSNorm gives them, rounded where that rounds; `rms` is 1 / sqrt(mean square + eps).
    """
    if padded:
        value = tl.load(x + at, mask=at < cols, other=0.0)
    else:
        value = tl.load(x + at)
    if normed:
        weight = tl.load(norm + at, mask=at < cols, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) * rms).to(x.dtype.element_ty).to(tl.float32) * weight
        value = value.to(x.dtype.element_ty)
    return value.to(tl.float32)[:, None]


@triton.jit
def two_inputs(
    x: tl.tensor,
    norm: tl.tensor,
    rms: tl.tensor,
    at: tl.tensor,
    cols: tl.constexpr,
    padded: tl.constexpr,
    normed: tl.constexpr,
) -> tl.tensor:
    """Load columns `at` and `at + 1`, see `one_input`."""
    first = one_input(x, norm, rms, at, cols, padded, normed)
    return first, one_input(x, norm, rms, at + 1, cols, padded, normed)


@triton.jit
def four_inputs(
    x: tl.tensor,
    norm: tl.tensor,
    rms: tl.tensor,
    at: tl.tensor,
    cols: tl.constexpr,
    padded: tl.constexpr,
    normed: tl.constexpr,
) -> tl.tensor:
    """Load columns `at` to `at + 3`, see `one_input`."""
    x0, x1 = two_inputs(x, norm, rms, at, cols, padded, normed)
    x2, x3 = two_inputs(x, norm, rms, at + 2, cols, padded, normed)
    return x0, x1, x2, x3


@triton.jit
def in_mantissa(words: tl.tensor, left: tl.constexpr, mask: tl.constexpr) -> tl.tensor:
    """Return 1 + code / 2^bits: the code moved `left` places (negative: right) to the top of a mantissa."""
    if left >= 0:
        moved = words << left
    else:
        moved = words >> -left
    return ((moved & mask) | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def e2m1(words: tl.tensor, place: tl.constexpr) -> tl.tensor:
    """Return the code at bit `place` as float32, 64 times too small: its bits at their places, and one product."""
    code = words >> place
    bits = ((code & 7) << 22) | ((code & 8) << 28)
    return bits.to(tl.float32, bitcast=True) * 1.329227995784916e36  # 2^120


@triton.jit
def e8m0(codes: tl.tensor) -> tl.tensor:
    """Return 2^(code - 127); code 0 is a subnormal number."""
    bits = tl.maximum(codes.to(tl.int32) << 23, 0x00400000)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def word_values(words: tl.tensor, asm: tl.constexpr) -> tl.tensor:
    """Return the eight codes of each word as float32, by PTX."""
    return tl.inline_asm_elementwise(
        asm,
        "=f,=f,=f,=f,=f,=f,=f,=f,r",
        [words],
        dtype=(tl.float32, tl.float32, tl.float32, tl.float32, tl.float32, tl.float32, tl.float32, tl.float32),
        is_pure=True,
        pack=1,
    )


@triton.jit
def int4_sums(words: tl.tensor, low: tl.tuple, high: tl.tuple, fast: tl.constexpr) -> tl.tensor:
    """Sum code * input over the 8 columns of each line, [M, 4]; the codes stand for -8 to 7."""
    x0, x1, x2, x3 = low
    x4, x5, x6, x7 = high
    if fast:
        w0, w1, w2, w3, w4, w5, w6, w7 = word_values(words, INT4_WORD)
        total = w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3 + w4 * x4 + w5 * x5 + w6 * x6 + w7 * x7
    else:
        total = in_mantissa(words, 19, 0x00780000) * x0
        total += in_mantissa(words, 11, 0x00780000) * x1
        total += in_mantissa(words, 3, 0x00780000) * x2
        total += in_mantissa(words, -5, 0x00780000) * x3
        total += in_mantissa(words, 15, 0x00780000) * x4
        total += in_mantissa(words, 7, 0x00780000) * x5
        total += in_mantissa(words, -1, 0x00780000) * x6
        total += in_mantissa(words, -9, 0x00780000) * x7
        # 16 * (1 + code / 16) - 24 = code - 8
        total = total * 16.0 - (((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))) * 24.0
    return total


@triton.jit
def mxfp4_sums(words: tl.tensor, low: tl.tuple, high: tl.tuple, fast: tl.constexpr) -> tl.tensor:
    """Sum value * input over the 8 columns of each line, [M, 4], 64 times too small."""
    x0, x1, x2, x3 = low
    x4, x5, x6, x7 = high
    if fast:
        w0, w1, w2, w3, w4, w5, w6, w7 = word_values(words, MXFP4_WORD)
    else:
        w0, w1, w2, w3 = e2m1(words, 0), e2m1(words, 8), e2m1(words, 16), e2m1(words, 24)
        w4, w5, w6, w7 = e2m1(words, 4), e2m1(words, 12), e2m1(words, 20), e2m1(words, 28)
    return w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3 + w4 * x4 + w5 * x5 + w6 * x6 + w7 * x7


@triton.jit
def int8_sums(words: tl.tensor, four: tl.tuple) -> tl.tensor:
    """Sum code * input over the 4 columns of each line, [M, 4]; the codes stand for -128 to 127."""
    x0, x1, x2, x3 = four
    total = in_mantissa(words, 15, 0x007F8000) * x0
    total += in_mantissa(words, 7, 0x007F8000) * x1
    total += in_mantissa(words, -1, 0x007F8000) * x2
    total += in_mantissa(words, -9, 0x007F8000) * x3
    return total * 256.0 - ((x0 + x1) + (x2 + x3)) * 384.0


@triton.jit
def fp8_values(units: tl.tensor, fast: tl.constexpr) -> tl.tensor:
    """Return the first and the second column of each unit as float32."""
    if fast:
        first, second = tl.inline_asm_elementwise(
            FP8_PAIRS, "=f,=f,=f,=f,r", [units], dtype=(tl.float32, tl.float32), is_pure=True, pack=2
        )
    else:
        first = (units & 255).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float32)
        second = ((units >> 8) & 255).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float32)
    return first, second


@triton.jit
def fp8_sums(units: tl.tensor, four: tl.tuple, fast: tl.constexpr) -> tl.tensor:
    """Sum value * input over the 2 columns of each unit, [M, 8]: units 4 to 7 are the other columns of 0 to 3."""
    x0, x1, x2, x3 = four
    first, second = fp8_values(units, fast)
    # A thread holds all eight units of a place, so which of the two is meant is settled when this is compiled.
    is_first = tl.arange(0, 8)[None, :] < 4
    return first * tl.where(is_first, x0, x2) + second * tl.where(is_first, x1, x3)


@triton.jit
def step_sums(
    codes: tl.tensor,
    scales: tl.tensor,
    x: tl.tensor,
    norm: tl.tensor,
    rms: tl.tensor,
    first: tl.tensor,
    cols: tl.constexpr,
    span_units: tl.constexpr,
    span_scales: tl.constexpr,
    S: tl.constexpr,
    L: tl.constexpr,
    U: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
    padded: tl.constexpr,
    normed: tl.constexpr,
    fast: tl.constexpr,
) -> tl.tensor:
    """Return what the columns of spans `first` to `first + S - 1` give to the rows of a block, float32 [M, U].

    codes and scales point to those of span 0 of the block; the next span's are `span_units` units of codes and
    `span_scales` scales further on. Of mxfp4 the result is 64 times too small, which `row_sums` mends.
    """
    place = tl.arange(0, 4 * L * S)
    line = place // 4 % L
    span = first + place // (4 * L)
    unit = (place % 4 * U)[:, None] + tl.arange(0, U)[None, :]  # in the line; for four units also the row
    units = tl.load(codes + ((span * span_units + line * (4 * U))[:, None] + unit))
    columns = span * 128 + line * (128 // L)  # [M]
    # One value and one return: Triton compiles what follows a return as well.
    if kind == "bf16":
        x0, x1 = two_inputs(x, norm, rms, columns, cols, padded, normed)
        even = (units << 16).to(tl.float32, bitcast=True)
        sums = even * x0 + (units & -65536).to(tl.float32, bitcast=True) * x1
    else:
        low = four_inputs(x, norm, rms, columns, cols, padded, normed)
        if kind == "fp8":
            sums = fp8_sums(units, low, fast) * tl.load(scales + span * span_scales)[:, None]
        elif kind == "int8":
            scale = tl.load(scales + ((span * span_scales)[:, None] + unit))
            sums = int8_sums(units, low) * scale.to(tl.float32)
        else:
            high = four_inputs(x, norm, rms, columns + 4, cols, padded, normed)
            of_line = span * span_scales + line * 8 // group * 16
            scale = tl.load(scales + (of_line[:, None] + unit))
            if kind == "int4":
                sums = int4_sums(units, low, high, fast) * scale.to(tl.float32)
            else:
                sums = mxfp4_sums(units, low, high, fast) * e8m0(scale)
    return sums


@triton.jit
def row_sums(sums: tl.tensor, S: tl.constexpr, L: tl.constexpr, U: tl.constexpr, kind: tl.constexpr) -> tl.tensor:
    """Add what all spans and lines gave: [M, U] -> [16], the rows of the block."""
    if kind == "fp8":
        rows = tl.sum(tl.reshape(sums, (L * S, 4, 2, 4)), axis=2)
    else:
        rows = tl.reshape(sums, (L * S, 4, 4))
    rows = tl.reshape(tl.sum(rows, axis=0), (16,))
    if kind == "mxfp4":
        rows *= 64.0
    return rows
