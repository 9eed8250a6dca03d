"""Packed 4-bit blocks times a bfloat16 vector on the tensor cores: half the instructions of `blocks`, where it works.

Codes become pairs of bfloat16, and mma.sync.m16n8k16 multiplies them with the vector's pairs as they are, in float32:
no code is widened, and no product is an instruction of its own. The instruction sums over the four lanes of a quad and
keeps its eight quads apart. So the places of a tile [64 S, 4] are counted otherwise here: 16 lines, then fours of
rows, then spans. A warp has all 16 lines of two fours, lane = 16 (four mod 2) + line, and a quad is the four lines of a
scale group of 32 columns.

    A, rows of the instruction     quad g is (rows' four, group h = g mod 4): two rows of the four, then the other two
    B, its columns                 column g holds the inputs that quad g has: those of group h again
    result, row g, column n        right where n mod 4 = h, which two lanes of the quad have: each gives half

Whether lanes and their words lie so is the compiler's choice. The code compares, and gives NaN where they do not: it
is never silently wrong. Untested on a card, and off unless it is asked for.
"""

import triton
import triton.language as tl

from mimo_cli.quant.triton.blocks import e8m0

_PRODUCTS = """
    .reg .b32 one<4>, two<4>, x<4>, lane, bit;
    .reg .f32 sum<4>, share;
    .reg .pred is_odd, is_mine, is_elsewhere;
    mov.u32 lane, %laneid;
    shr.u32 bit, lane, 3;
    xor.b32 bit, bit, lane;
    and.b32 bit, bit, 1;
    setp.eq.u32 is_mine, bit, 0;
    selp.f32 share, 0f3F000000, 0f00000000, is_mine;
    setp.ne.u32 is_elsewhere, lane, $12;
    selp.f32 share, 0f7FC00000, share, is_elsewhere;
    add.u32 bit, lane, 32;
    setp.ne.u32 is_elsewhere, bit, $13;
    selp.f32 share, 0f7FC00000, share, is_elsewhere;
    add.u32 bit, lane, 64;
    setp.ne.u32 is_elsewhere, bit, $14;
    selp.f32 share, 0f7FC00000, share, is_elsewhere;
    add.u32 bit, lane, 96;
    setp.ne.u32 is_elsewhere, bit, $15;
    selp.f32 share, 0f7FC00000, share, is_elsewhere;
    and.b32 bit, lane, 4;
    setp.ne.u32 is_odd, bit, 0;
"""
"""Registers, and the lane's share of the result: half, none, or NaN where it, or a row, is not where it should be."""

_MULTIPLY = """
    mov.f32 sum0, 0f00000000;
    mov.f32 sum1, 0f00000000;
    mov.f32 sum2, 0f00000000;
    mov.f32 sum3, 0f00000000;
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {sum0, sum1, sum2, sum3},
        {one0, two0, one1, two1}, {x0, x1}, {sum0, sum1, sum2, sum3};
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {sum0, sum1, sum2, sum3},
        {one2, two2, one3, two3}, {x2, x3}, {sum0, sum1, sum2, sum3};
    selp.f32 sum0, sum1, sum0, is_odd;
    selp.f32 sum2, sum3, sum2, is_odd;
    mul.f32 FIRST, sum0, share;
    mul.f32 SECOND, sum2, share;
"""
"""Two rows of words, as pairs one0 to one3 and two0 to two3, times the inputs x0 to x3."""

_INT4_INPUTS = """
    prmt.b32 x0, $8, $9, 0x5410;
    prmt.b32 x1, $8, $9, 0x7632;
    prmt.b32 x2, $10, $11, 0x5410;
    prmt.b32 x3, $10, $11, 0x7632;
"""
"""Columns 0, 2; 1, 3; 4, 6; 5, 7: the pairs that lie 16 bits apart in a word of codes."""


def _int4_pairs(word: str, out: str) -> str:
    """A code is the end of a bfloat16 between 128 and 144; 136 less is its number, exactly."""
    lines = []
    for pair, shift in enumerate((0, 8, 4, 12)):
        moved = word if not shift else f"{out}{pair}"
        lines += [f"shr.u32 {out}{pair}, {word}, {shift};"] if shift else []
        lines += [
            f"lop3.b32 {out}{pair}, {moved}, 0x000F000F, 0x43004300, 0xEA;",
            f"fma.rn.bf16x2 {out}{pair}, {out}{pair}, unit, bias;",
        ]
    return "\n".join(lines)


def _mxfp4_pairs(word: str, out: str) -> str:
    """A code's bits at their places in a bfloat16 are its number, 2^126 times too small: one exact product."""
    lines = []
    for pair, place in enumerate((0, 8, 4, 12)):
        sign, rest = 12 - place, 6 - place
        lines += [
            f"shl.b32 bit, {word}, {sign};" if sign else f"mov.b32 bit, {word};",
            "and.b32 bit, bit, 0x80008000;",
            f"shl.b32 {out}{pair}, {word}, {rest};" if rest > 0 else f"shr.u32 {out}{pair}, {word}, {-rest};",
            f"lop3.b32 {out}{pair}, {out}{pair}, 0x01C001C0, bit, 0xEA;",
            f"fma.rn.bf16x2 {out}{pair}, {out}{pair}, unit, bias;",
        ]
    return "\n".join(lines)


def _program(kind: str) -> str:
    """Return the PTX of four words.

    $0 to $3: the sums of four rows; $4 to $7: their words; $8 to $11: eight inputs; $12 to $15: where they should be,
    lane + 32 row.
    """
    pairs = _int4_pairs if kind == "int4" else _mxfp4_pairs
    unit, bias = ("0x3F803F80", "0xC308C308") if kind == "int4" else ("0x7E807E80", "0x80008000")
    parts = [_PRODUCTS, f".reg .b32 unit, bias;\nmov.b32 unit, {unit};\nmov.b32 bias, {bias};", _INT4_INPUTS]
    for first, second in ((0, 1), (2, 3)):
        parts += [pairs(f"${4 + first}", "one"), pairs(f"${4 + second}", "two")]
        parts += [_MULTIPLY.replace("FIRST", f"${first}").replace("SECOND", f"${second}")]
    return "{\n" + "\n".join(parts) + "\n}"


INT4_PRODUCTS = tl.constexpr(_program("int4"))
MXFP4_PRODUCTS = tl.constexpr(_program("mxfp4"))


@triton.jit
def core_sums(
    codes: tl.tensor,
    scales: tl.tensor,
    pairs: tl.tensor,
    first: tl.tensor,
    span_units: tl.constexpr,
    span_scales: tl.constexpr,
    S: tl.constexpr,
    kind: tl.constexpr,
    group: tl.constexpr,
) -> tl.tensor:
    """Return what `blocks.step_sums` does, as float32 [64 S, 4]; pairs int32: the vector's bfloat16, two by two."""
    place = tl.arange(0, 64 * S)
    line, four, span = place % 16, place // 16 % 4, first + place // 64
    row = tl.arange(0, 4)[None, :]
    words = tl.load(codes + ((span * span_units + line * 16 + four * 4)[:, None] + row))
    scale = tl.load(scales + ((span * span_scales + line * 8 // group * 16 + four * 4)[:, None] + row))
    inputs = tl.load(pairs + ((span * 64 + line * 4)[:, None] + row))
    lanes = (four % 2 * 16 + line)[:, None] + row * 32
    if kind == "int4":
        sums = tl.inline_asm_elementwise(
            INT4_PRODUCTS, "=f,=f,=f,=f,r,r,r,r,r,r,r,r,r,r,r,r", [words, inputs, lanes], tl.float32, True, 4
        )
        weight = scale.to(tl.float32)
    else:
        sums = tl.inline_asm_elementwise(
            MXFP4_PRODUCTS, "=f,=f,=f,=f,r,r,r,r,r,r,r,r,r,r,r,r", [words, inputs, lanes], tl.float32, True, 4
        )
        weight = e8m0(scale)
    return sums * weight


@triton.jit
def core_row_sums(sums: tl.tensor, S: tl.constexpr) -> tl.tensor:
    """Add what all spans and lines gave: [64 S, 4] -> [16], the rows of the block."""
    rows = tl.sum(tl.sum(tl.reshape(sums, (S, 4, 16, 4)), axis=2), axis=0)
    return tl.reshape(rows, (16,))
