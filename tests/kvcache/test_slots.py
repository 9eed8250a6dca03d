"""One allocation of keys and values: positions in, views out."""

import pytest
import torch

from mimo_cli.kvcache.slots import Slots, refuse_gradients


def _rows(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [1, 2, n, 3] and values [1, 2, n, 2] whose numbers are their positions."""
    positions = torch.arange(first, first + count, dtype=torch.float32)[None, None, :, None]
    return positions.expand(1, 2, count, 3), -positions.expand(1, 2, count, 2)


def test_slots_give_back_the_positions_that_were_written() -> None:
    keys, values = _rows(7, 4)
    slots = Slots.allocate(keys, values, slots=6, first=5, dtype=torch.float32)
    slots.write(*_rows(5, 2), 5)
    slots.write(keys, values, 7)
    read_keys, read_values = slots.read(6, 10)
    assert read_keys[0, 0, :, 0].tolist() == [6, 7, 8, 9]
    assert read_values[0, 1, :, 1].tolist() == [-6, -7, -8, -9]
    assert (slots.first, slots.end, slots.capacity_end) == (5, 11, 11)


def test_reading_copies_nothing() -> None:
    keys, values = _rows(0, 4)
    slots = Slots.allocate(keys, values, slots=4, first=0, dtype=torch.float32)
    slots.write(keys, values, 0)
    assert slots.read(1, 3)[0].data_ptr() == slots.keys[:, :, 1].data_ptr()


def test_writing_forgets_what_was_behind() -> None:
    keys, values = _rows(0, 4)
    slots = Slots.allocate(keys, values, slots=8, first=0, dtype=torch.float32)
    slots.write(keys, values, 0)
    slots.write(*_rows(1, 1), 1)
    assert slots.end == 2


def test_slots_convert_to_their_own_dtype_and_count_its_bytes() -> None:
    keys, values = _rows(0, 3)
    slots = Slots.allocate(keys, values, slots=10, first=0, dtype=torch.bfloat16)
    slots.write(keys, values, 0)
    assert slots.read(0, 3)[0].dtype == torch.bfloat16
    assert slots.nbytes == 2 * 10 * (3 + 2) * 2


def test_tensors_that_record_gradients_are_refused() -> None:
    keys, values = _rows(0, 3)
    with pytest.raises(RuntimeError, match="no gradients"):
        refuse_gradients(keys, values.clone().requires_grad_())
