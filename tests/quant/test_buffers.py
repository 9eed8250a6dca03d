"""Memory for packed weights."""

import pytest

from mimo_cli.quant.buffers import HUGE_PAGE_BYTES, PAGE_BYTES, allocate_bytes, round_up


@pytest.mark.parametrize("nbytes", [1, 4096, 4097, HUGE_PAGE_BYTES - 1])
def test_small_buffers_begin_at_a_page(nbytes: int) -> None:
    buffer = allocate_bytes(nbytes)
    assert len(buffer) == nbytes and buffer.data_ptr() % PAGE_BYTES == 0 and not buffer.any()


@pytest.mark.parametrize("nbytes", [HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 1])
def test_large_buffers_begin_at_a_huge_page(nbytes: int) -> None:
    buffer = allocate_bytes(nbytes)
    assert len(buffer) == nbytes and buffer.data_ptr() % HUGE_PAGE_BYTES == 0


def test_a_buffer_is_its_own_to_the_last_byte_and_lives_as_long_as_its_views() -> None:
    first, second = allocate_bytes(5000), allocate_bytes(5000)
    first.fill_(1)
    view = first[4999:]
    del first
    allocate_bytes(5000).fill_(2)
    assert view.item() == 1 and not second.any()


def test_no_bytes_are_a_buffer_too() -> None:
    assert allocate_bytes(0).shape == (0,)


def test_numbers_are_rounded_up_to_a_multiple() -> None:
    assert [round_up(n, 4096) for n in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]
