"""Weight formats as numbers: bits per weight, block, and the bytes a matrix of a given shape takes. No torch.

Source of the storage rules: text specification, section 8.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFormat:
    """How a matrix [rows, columns] is stored. `block` is (rows, columns) per scale, None where there are no scales."""

    name: str
    weight_bits: int
    block: tuple[int, int] | None = None
    scale_bytes: int = 0

    def scale_shape(self, rows: int, columns: int, chunks: int = 1) -> tuple[int, int] | None:
        """Return the shape of the scale grid; `chunks` equal parts of rows each start their own grid."""
        if self.block is None:
            return None
        return chunks * -(-(rows // chunks) // self.block[0]), -(-columns // self.block[1])

    def weight_shape(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the shape of the stored weight tensor: formats below 8 bits pack several inputs into a byte."""
        return (rows, columns * self.weight_bits // 8) if self.weight_bits < 8 else (rows, columns)

    def size_bytes(self, rows: int, columns: int, chunks: int = 1) -> int:
        """Return the bytes of weights and scales together."""
        grid = self.scale_shape(rows, columns, chunks)
        scales = grid[0] * grid[1] * self.scale_bytes if grid else 0
        return rows * columns * self.weight_bits // 8 + scales

    def bits_per_weight(self, rows: int, columns: int) -> float:
        """Return the bits per weight with the scales' share."""
        return 8 * self.size_bytes(rows, columns) / (rows * columns)


FLOAT32 = WeightFormat("F32", 32)
BFLOAT16 = WeightFormat("BF16", 16)
FLOAT16 = WeightFormat("F16", 16)
FP8_BLOCK = WeightFormat("FP8", 8, (128, 128), 4)
"""float8_e4m3fn with one float32 scale per 128 x 128 block."""
MXFP4 = WeightFormat("MXFP4", 4, (1, 32), 1)
"""Two e2m1 codes per byte with one e8m0 byte per 32 inputs."""
