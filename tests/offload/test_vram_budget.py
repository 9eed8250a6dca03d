"""Dividing the memory of a card: never more than was given, everything that must be there first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import CapacityError
from mimo_cli.offload.budget import RamSetting, parse_ram
from mimo_cli.offload.vram_budget import RESERVE_BYTES, VramBudget, vram_total

GB = 10**9
SIZES = {"driver_bytes": GB // 2, "dense_bytes": 10 * GB, "kv_bytes": GB, "buffer_bytes": GB}


def budget(total: int, slot: int = 14 * 10**6, experts: int = 12_032, layer_experts: int = 256) -> VramBudget:
    return VramBudget(total, **SIZES, slot_bytes=slot, experts=experts, layer_experts=layer_experts)


@given(st.integers(0, 300 * GB), st.integers(1, GB), st.integers(0, 20_000), st.integers(1, 256))
def test_the_parts_are_never_more_than_was_given(total: int, slot: int, experts: int, layer_experts: int) -> None:
    found = budget(total, slot, experts, layer_experts)
    assert 0 <= found.slots <= experts
    if total >= found.least_bytes:
        assert found.fixed_bytes + found.transfer_bytes + found.slots_bytes <= total + 4 * experts
        found.require()
    else:
        assert found.slots == found.half == 0
        with pytest.raises(CapacityError, match="the card needs"):
            found.require()


@given(st.integers(13 * GB, 200 * GB), st.integers(0, 50 * GB))
def test_more_memory_never_keeps_fewer_experts_by_more_than_what_lands(total: int, more: int) -> None:
    small, large = budget(total), budget(total + more)
    assert large.slots + 2 * large.half >= small.slots + 2 * small.half


def test_all_experts_fit_on_a_large_card() -> None:
    found = budget(200 * GB)
    assert found.slots == 12_032 and found.half == 16


def test_a_model_without_experts_has_no_slots() -> None:
    found = budget(20 * GB, slot=0, experts=0)
    assert (found.slots, found.half, found.transfer_bytes) == (0, 0, 0)


def test_room_for_one_expert_is_room_for_none() -> None:
    """A half that is computed and one that lands: with less, nothing could be copied while computing."""
    fixed = sum(SIZES.values())
    assert budget(fixed + 14 * 10**6).half == 0
    assert (budget(fixed + 28 * 10**6 + 4 * 12_032).half, budget(fixed + 28 * 10**6 + 4 * 12_032).slots) == (1, 0)


@pytest.mark.parametrize(("text", "expected"), [("auto", 79 * GB - RESERVE_BYTES), ("24G", 24 * GB), ("50%", 40 * GB)])
def test_the_total_is_what_was_asked_for(text: str, expected: int) -> None:
    assert vram_total(parse_ram(text), 79 * GB, 80 * GB) == expected


def test_more_than_is_free_is_refused_with_both_numbers() -> None:
    with pytest.raises(CapacityError, match=r"24 GB of graphics memory was given, 10 GB are free") as caught:
        vram_total(RamSetting(size_bytes=24 * GB), 10 * GB, 24 * GB)
    assert caught.value.hint == "--vram auto takes 8.93 GB"


def test_a_card_that_is_nearly_full_has_nothing_to_give() -> None:
    assert vram_total(RamSetting(), RESERVE_BYTES // 2, 24 * GB) == 0


def test_a_refusal_names_every_part() -> None:
    with pytest.raises(CapacityError, match=r"500 MB for the driver, 10 GB for the dense part, 1 GB for the KV cache"):
        budget(8 * GB).require()
