"""Memory for packed weights."""

from pathlib import Path

import pytest

from mimo_cli.quant.buffers import HUGE_PAGE_BYTES, PAGE_BYTES, allocate_bytes, round_up

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


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


@pytest.mark.skipif(not THP.exists() or "[never]" in THP.read_text(), reason="no huge pages here")
def test_a_large_buffer_can_have_huge_pages() -> None:
    buffer = allocate_bytes(8 * HUGE_PAGE_BYTES).fill_(1)
    name, found = f"{buffer.data_ptr():x}", False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and not line.split(" ")[0].endswith(":"):
            low, high = (int(part, 16) for part in line.split(" ")[0].split("-"))
            found = low <= buffer.data_ptr() < high
        if found and line.startswith("VmFlags:"):
            # Advised (hg) and private: shared memory (sh) has huge pages only where the whole system was set up for it.
            assert "hg" in line.split() and "sh" not in line.split(), name
            return
    pytest.fail(f"no mapping at {name}")
