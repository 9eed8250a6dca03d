"""Packed streams of random weights: sound numbers in every format, made about as fast as memory is copied.

Blocks of 16 rows do not depend on one another, so a few hundred rows that were really quantised make a stream of any
height: they are repeated, each time beginning at another block.
"""

import random
import threading

import torch
from torch import Tensor

from mimo_cli.quant.linear import INIT_STD
from mimo_cli.quant.packed import BLOCK_ROWS, PackedShape
from mimo_cli.quant.quantize import pack_stream, quantize

_TEMPLATE_ROWS = 512


class RandomStreams:
    """Makes streams of normal weights with standard deviation INIT_STD; the same `seed` and key, the same bytes."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._templates: dict[PackedShape, Tensor] = {}
        self._lock = threading.Lock()  # the generator's numbers must go to the same template every time

    def fill(self, shape: PackedShape, out: Tensor, key: int = 0) -> Tensor:
        """Write a stream into `out` uint8 [shape.nbytes] and return it; `key` tells streams of one shape apart."""
        template = self._template(shape)
        if shape.rows % BLOCK_ROWS:  # the last block holds padding, so the order of the blocks must stay
            return out.copy_(template)
        draw = random.Random(key)
        blocks = len(template) // shape.block_bytes
        for first in range(0, shape.nbytes, len(template)):
            part = out[first : first + len(template)]
            split = draw.randrange(blocks) * shape.block_bytes
            head = template[split:][: len(part)]
            part[: len(head)].copy_(head)
            part[len(head) :].copy_(template[: len(part) - len(head)])
        return out

    def _template(self, shape: PackedShape) -> Tensor:
        """Return the blocks that streams of a shape are made of, uint8."""
        rows = shape.rows if shape.rows % BLOCK_ROWS else min(shape.rows, _TEMPLATE_ROWS)
        small = PackedShape(shape.format, shape.group, rows, shape.cols, shape.streams)
        with self._lock:
            if small not in self._templates:
                size = (rows, shape.cols)
                weights = [torch.randn(size, generator=self._generator) * INIT_STD for _ in range(shape.streams)]
                codes = [quantize(matrix, shape.format, shape.group) for matrix in weights]
                self._templates[small] = pack_stream(small, codes)
            return self._templates[small]
