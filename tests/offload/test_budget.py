"""The budget: what people type, how the total is divided, and refusals that name the numbers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.errors import CapacityError, UsageError
from mimo_cli.offload.budget import AUTOMATIC, MemoryBudget, RamSetting, parse_ram, reserve_bytes

GB = 10**9

BUDGET = MemoryBudget(
    total_bytes=16 * GB,
    process_bytes=GB // 2,
    dense_bytes=8 * GB,
    kv_bytes=GB,
    buffer_bytes=GB // 2,
    slot_bytes=GB // 100,
    experts=10_000,
    step_slots=8,
    cycle_slots=376,
)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("16G", RamSetting(size_bytes=16 * GB)),
        (" 1.5GB ", RamSetting(size_bytes=GB * 3 // 2)),
        ("80%", RamSetting(share=0.8)),
        ("12.5 %", RamSetting(share=0.125)),
        ("auto", AUTOMATIC),
        ("AUTO", AUTOMATIC),
    ],
)
def test_what_people_type_is_read(text: str, setting: RamSetting) -> None:
    assert parse_ram(text) == setting


@pytest.mark.parametrize("text", ["", "much", "-3G", "0%", "101%", "80%%"])
def test_other_texts_are_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"size|memory"):
        parse_ram(text)


def test_automatic_leaves_a_reserve_and_others_take_what_they_say() -> None:
    assert AUTOMATIC.total_bytes(20 * GB, 24 * GB) == 20 * GB - reserve_bytes(24 * GB)
    assert AUTOMATIC.total_bytes(GB // 10, 24 * GB) == 0
    assert parse_ram("50%").total_bytes(20 * GB, 24 * GB) == 12 * GB
    assert parse_ram("16G").total_bytes(20 * GB, 24 * GB) == 16 * GB


def test_more_than_is_free_is_refused_with_the_numbers() -> None:
    with pytest.raises(CapacityError, match=r"a budget of 21.6 GB was given, 20 GB of memory are free") as refused:
        parse_ram("90%").total_bytes(20 * GB, 24 * GB)
    assert refused.value.hint and "--ram auto" in refused.value.hint


def test_what_is_left_is_slots() -> None:
    assert BUDGET.slots == 600 and BUDGET.slots_bytes == 6 * GB
    assert replace(BUDGET, experts=100).slots == 100
    assert replace(BUDGET, slot_bytes=0).slots == 0
    BUDGET.require()


def test_the_dense_part_alone_may_be_too_much() -> None:
    with pytest.raises(CapacityError, match=r"^needs 8.5 GB for the dense part, 8 GB given$"):
        replace(BUDGET, total_bytes=8 * GB).require()


def test_what_is_needed_is_listed_part_by_part() -> None:
    expected = (
        r"needs 10.1 GB \(8.5 GB for the dense part, 1 GB for the KV cache, 500 MB for buffers, "
        r"80 MB for 8 experts of a step\), 10 GB given"
    )
    with pytest.raises(CapacityError, match=expected) as refused:
        replace(BUDGET, total_bytes=10 * GB).require()
    assert refused.value.hint == "--ram 10.1G, or a smaller --ctx"
    with pytest.raises(CapacityError) as refused:
        replace(BUDGET, total_bytes=10 * GB).require(usable_bytes=10 * GB)
    assert "--ram" not in refused.value.hint and "close other programs" in refused.value.hint


def test_below_the_experts_of_one_token_hardly_any_is_found_again() -> None:
    assert not BUDGET.is_below_cycle
    assert replace(BUDGET, total_bytes=BUDGET.fixed_bytes + 375 * BUDGET.slot_bytes).is_below_cycle
    assert not replace(BUDGET, total_bytes=BUDGET.fixed_bytes + 20 * BUDGET.slot_bytes, experts=20).is_below_cycle


@given(total=st.integers(0, 40 * GB), slot_bytes=st.integers(1, GB), experts=st.integers(0, 10**5))
def test_the_parts_never_exceed_the_total_of_a_budget_that_works(total: int, slot_bytes: int, experts: int) -> None:
    budget = replace(BUDGET, total_bytes=total, slot_bytes=slot_bytes, experts=experts)
    works = total >= budget.least_bytes
    try:
        budget.require()
        assert works and budget.fixed_bytes + budget.slots_bytes <= total
        assert budget.slots >= min(budget.step_slots, experts)
    except CapacityError:
        assert not works
