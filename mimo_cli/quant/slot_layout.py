"""SlotLayout: where in an expert's record a kernel finds codes and scales, as plain numbers.

A record is [gate and up, one packed stream][down][padding]; packed.py states what is inside a stream. Kernels that walk
records by themselves (those of a GPU) need the strides and not the classes behind them:

    codes of block b, span s    at  codes_offset  + b * block_bytes + s * span_bytes
    scales of block b, span s   at  scales_offset + b * block_bytes + s * scales_stride

both counted from the first byte of the record. A block is 16 rows, a span 128 columns; rows and columns beyond the
matrix are zeros. Nothing here needs more than numpy and torch.
"""

from dataclasses import dataclass

from mimo_cli.quant.packed import PackedFormat, PackedShape


@dataclass(frozen=True)
class MatrixLayout:
    """One matrix [rows, cols] inside a record; all places in bytes from the record's beginning.

    blocks, spans   blocks of 16 rows, spans of 128 columns
    codes_offset    of the codes of block 0, span 0; `code_bytes` of them, in the order that packed.py states
    scales_offset   of the scales of block 0, span 0; `scale_bytes` of them: float16 [group][row] (int4, int8), e8m0
                    bytes [group][row] (mxfp4), one float32 (fp8), none (bf16: 0 bytes)
    block_bytes     from one block to the next
    span_bytes      from the codes of one span to those of the next
    scales_stride   from the scales of one span to those of the next
    """

    rows: int
    cols: int
    blocks: int
    spans: int
    codes_offset: int
    code_bytes: int
    scales_offset: int
    scale_bytes: int
    block_bytes: int
    span_bytes: int
    scales_stride: int

    @classmethod
    def within(cls, shape: PackedShape, stream: int, offset: int) -> "MatrixLayout":
        """Return the layout of one stream of a packed shape that begins `offset` bytes into a record."""
        if not 0 <= stream < shape.streams:
            raise ValueError(f"a shape of {shape.streams} streams has no stream {stream}")
        in_head = shape.format == "fp8"  # its scales stand before the first span of a block
        scales = 4 * stream * shape.spans
        if not in_head:
            scales = shape.head_bytes + shape.streams * shape.code_bytes + stream * shape.scale_bytes
        return cls(
            rows=shape.rows,
            cols=shape.cols,
            blocks=shape.blocks,
            spans=shape.spans,
            codes_offset=offset + shape.head_bytes + stream * shape.code_bytes,
            code_bytes=shape.code_bytes,
            scales_offset=offset + scales,
            scale_bytes=4 if in_head else shape.scale_bytes,
            block_bytes=shape.block_bytes,
            span_bytes=shape.span_bytes,
            scales_stride=4 if in_head else shape.span_bytes,
        )


@dataclass(frozen=True)
class SlotLayout:
    """One expert's record: gate and up [I, H] and down [H, I] in one format.

    format, group   as in PackedShape
    record_bytes    bytes that mean something; a slot, from one expert to the next, may have more
    """

    format: PackedFormat
    group: int
    hidden_size: int
    width: int
    record_bytes: int
    gate: MatrixLayout
    up: MatrixLayout
    down: MatrixLayout


def slot_layout(up_shape: PackedShape, down_shape: PackedShape) -> SlotLayout:
    """Return the layout of records made of `up_shape` (two streams: gate, up) and `down_shape` behind it.

    These are the shapes that every source of expert records has. Raises ValueError where they are not of one expert.
    """
    same = (up_shape.format, up_shape.group) == (down_shape.format, down_shape.group)
    if not same or (up_shape.streams, down_shape.streams) != (2, 1):
        raise ValueError(f"{up_shape} and {down_shape} are not the matrices of one expert")
    if (up_shape.rows, up_shape.cols) != (down_shape.cols, down_shape.rows):
        raise ValueError(f"down of {down_shape} does not take what gate and up of {up_shape} make")
    return SlotLayout(
        format=up_shape.format,
        group=up_shape.group,
        hidden_size=up_shape.cols,
        width=up_shape.rows,
        record_bytes=up_shape.nbytes + down_shape.nbytes,
        gate=MatrixLayout.within(up_shape, 0, 0),
        up=MatrixLayout.within(up_shape, 1, 0),
        down=MatrixLayout.within(down_shape, 0, up_shape.nbytes),
    )
