"""Everything has one place, memory is never promised twice, and what does not fit is told with numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.checkpoint.release_shapes import release_audio_tokenizer, release_config
from mimo_cli.engine.model_sizes import EXPERTS, Extras, ModelSizes, model_sizes
from mimo_cli.engine.placement import KV, plan_placement

GB = 10**9


def sizes(experts: str = "as released", dense: str = "keep") -> ModelSizes:
    config = release_config("v2.5")
    return model_sizes(config, Extras(3, True, release_audio_tokenizer(config)), experts, dense)  # type: ignore[arg-type]


RELEASED = sizes()


@given(st.integers(16 * GB, 500 * GB), st.integers(1, 1 << 20))
def test_memory_holds_no_more_than_was_given(ram_bytes: int, context: int) -> None:
    placement = plan_placement(RELEASED, ram_bytes, context)
    if placement.fits:
        assert placement.total_bytes("ram") <= ram_bytes
    counts = {row.place: row.count for row in placement.rows if row.name == EXPERTS}
    assert sum(counts.values()) == RELEASED.num_experts
    assert all(row.size_bytes > 0 for row in placement.rows)


@given(st.integers(1 * GB, 400 * GB), st.integers(0, 100 * GB))
def test_more_memory_never_holds_fewer_experts(ram_bytes: int, more: int) -> None:
    small, large = (plan_placement(RELEASED, size, 32768) for size in (ram_bytes, ram_bytes + more))
    assert large.budget.slots >= small.budget.slots and large.fits >= small.fits


def test_the_kv_cache_is_that_of_the_specification() -> None:
    rows = {row.name: row.size_bytes for row in plan_placement(RELEASED, 64 * GB, 131_072).rows}
    assert 3.02e9 < rows[KV] < 3.08e9  # 23,040 bytes a token, and the windows of 39 layers


def test_too_little_memory_is_told_with_both_numbers() -> None:
    placement = plan_placement(RELEASED, 8 * GB, 32_768)
    assert not placement.fits and placement.shortage is not None
    assert "of memory are needed at least, 8 GB given" in placement.shortage
    assert plan_placement(RELEASED, placement.budget.least_bytes, 32_768).fits


def test_too_little_disk_is_told_unless_the_files_are_there() -> None:
    assert plan_placement(RELEASED, 64 * GB, 32_768).fits
    placement = plan_placement(RELEASED, 64 * GB, 32_768, disk_bytes=200 * GB)
    assert placement.shortage == "the files take 316 GB of disk, 200 GB given"
    assert plan_placement(sizes("int4", "int8"), 64 * GB, 32_768, disk_bytes=200 * GB).fits


def test_all_experts_in_memory_leave_none_on_disk() -> None:
    placement = plan_placement(RELEASED, 400 * GB, 32_768)
    assert placement.resident_share == 1.0
    assert [row.place for row in placement.rows if row.name == EXPERTS] == ["ram"]


def test_towers_can_stay_away() -> None:
    with_towers, without = (plan_placement(RELEASED, 32 * GB, 32_768, has_towers=has) for has in (True, False))
    assert without.budget.slots > with_towers.budget.slots
    assert not {"vision", "audio"} & {row.name for row in without.rows if row.place == "ram"}


@pytest.mark.parametrize(("ram_gb", "is_below"), [(20, True), (30, False)])
def test_fewer_experts_than_a_token_visits_are_noticed(ram_gb: int, is_below: bool) -> None:
    placement = plan_placement(RELEASED, ram_gb * GB, 32_768)
    assert placement.fits and placement.budget.is_below_cycle is is_below
