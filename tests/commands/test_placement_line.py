"""What the header and --json say of where a model's weights lie."""

from dataclasses import replace

from mimo_cli.commands.loading import placement_fields, placement_line
from mimo_cli.offload.budget import MemoryBudget

GB = 10**9
BUDGET = MemoryBudget(16 * GB, GB, 8 * GB, GB, GB // 2, 13_000_000, 12_032, 8, 376)


def test_some_experts_in_memory_are_counted() -> None:
    line = placement_line(BUDGET, 316 * GB)
    assert line == "placement: RAM 13.5 GB with 423 of 12,032 experts, all 316 GB on disk"
    fields = placement_fields(BUDGET)
    assert fields is not None and fields["experts_in_ram"] == 423 and fields["expert_bytes"] == 423 * 13_000_000


def test_all_experts_in_memory_or_none_to_place() -> None:
    assert placement_line(replace(BUDGET, experts=80), 21_100_000) == (
        "placement: RAM, all 80 experts in it (21.1 MB of weights)"
    )
    assert placement_line(None, GB) == "placement: RAM (1 GB of weights)"
    assert placement_fields(None) is None
