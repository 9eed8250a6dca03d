"""Random packed streams are sound: the right spread, no special numbers, the same for the same key."""

import numpy as np
import pytest
import torch

from mimo_cli.quant.linear import INIT_STD
from mimo_cli.quant.packed import GROUPS, PackedShape, decode_packed
from mimo_cli.quant.random_streams import RandomStreams


def filled(shape: PackedShape, key: int = 0, seed: int = 0) -> torch.Tensor:
    return RandomStreams(seed).fill(shape, torch.full((shape.nbytes,), 255, dtype=torch.uint8), key)


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("streams", [1, 2])
def test_every_format_decodes_to_weights_of_the_usual_spread(kind: str, streams: int) -> None:
    shape = PackedShape(kind, GROUPS[kind][0], 128, 256, streams)
    for matrix in decode_packed(filled(shape).numpy(), shape):
        assert np.isfinite(matrix).all() and abs(matrix.mean()) < 0.001
        # 32,768 draws; four bits round a normal weight by about a tenth of its deviation.
        assert abs(matrix.std() / INIT_STD - 1) < 0.05


def test_a_tall_matrix_is_filled_to_its_end_with_rows_in_another_order() -> None:
    shape = PackedShape("int8", 128, 1552, 128)  # three pieces of 512 rows and a rest of 16
    rows = decode_packed(filled(shape, key=5).numpy(), shape)[0]
    assert (np.abs(rows).max(axis=1) > 0).all()
    assert len(np.unique(rows, axis=0)) == 512
    assert not np.array_equal(rows[:512], rows[512:1024])


def test_the_key_tells_streams_of_one_shape_apart() -> None:
    shape = PackedShape("int4", 32, 512, 128)
    assert torch.equal(filled(shape, key=1), filled(shape, key=1))
    assert not torch.equal(filled(shape, key=1), filled(shape, key=2))
    assert not torch.equal(filled(shape, key=1, seed=0), filled(shape, key=1, seed=9))


def test_the_padding_of_a_ragged_matrix_stays_at_its_end() -> None:
    shape = PackedShape("int4", 32, 40, 100)
    whole = PackedShape("int4", 32, 48, 128)
    padded = decode_packed(filled(shape, key=3).numpy(), whole)[0]
    assert (padded[40:] == 0).all() and (padded[:, 100:] == 0).all() and (padded[:40, :100] != 0).any()
