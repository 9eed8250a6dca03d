from dataclasses import replace

import pytest

from mimo_cli.commands.numbers import (
    context_share,
    format_rate,
    format_tokens,
    memory_fields,
    numbers_line,
    timing_fields,
    usage_fields,
)
from mimo_cli.engine.stats import ExpertTraffic, GenerationStats

STATS = GenerationStats(
    prompt_tokens=1204,
    cached_tokens=1100,
    generated_tokens=400,
    prefill_s=3.2,
    first_token_s=3.9,
    decode_s=42.5,
    decode_experts=ExpertTraffic(hits=61, misses=39, bytes_read=399 * 25_000_000),
    kv_bytes=5_000_000,
    context_tokens=1604,
    context_limit=32768,
)


def test_numbers_line_is_the_documented_one() -> None:
    assert numbers_line(STATS, think_tokens=312) == (
        "prompt 1,204 tok (cached 1,100) 3.2 s 32 t/s | think 312 | answer 88 tok 9.4 t/s | first 3.9 s"
        " | hit RAM 61 % disk 39 % | read 25 MB/tok | ctx 1.6k/32k"
    )


def test_a_card_is_a_tier_of_its_own() -> None:
    traffic = ExpertTraffic(hits=37, misses=2, bytes_read=1, card_hits=61)
    stats = replace(STATS, decode_experts=traffic)
    assert " | hit GPU 61 % RAM 37 % disk 2 % | " in numbers_line(stats, 0)
    fields = memory_fields(stats)
    assert fields["expert_hit_rate"] == pytest.approx(0.98)
    assert fields["expert_card_hit_rate"] == pytest.approx(0.61)
    assert traffic + traffic - traffic == traffic


def test_numbers_line_leaves_out_what_did_not_happen() -> None:
    stats = GenerationStats(prompt_tokens=5, prefill_s=0.01, first_token_s=0.02, generated_tokens=1, context_limit=100)
    assert numbers_line(stats, 0) == "prompt 5 tok 10 ms 500 t/s | answer 1 tok | first 20 ms | ctx 0/100"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1023, "1023"), (1024, "1k"), (3174, "3.1k"), (32768, "32k"), (1048576, "1M")]
)
def test_contexts_are_counted_in_1024s(count: int, text: str) -> None:
    assert format_tokens(count) == text
    assert context_share(count, 32768) == f"{text}/32k"


@pytest.mark.parametrize(
    ("rate", "text"), [(0.31, "0.31 t/s"), (9.44, "9.4 t/s"), (33.3, "33 t/s"), (310.4, "310 t/s")]
)
def test_rates_have_two_digits_or_more(rate: float, text: str) -> None:
    assert format_rate(rate) == text


def test_fields_for_programs_add_up() -> None:
    usage = usage_fields(STATS, think_tokens=312)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] == 1604
    assert usage["reasoning_tokens"] == 312
    timings = timing_fields(STATS, load_s=1.5)
    assert timings["load_s"] == 1.5
    assert timings["prompt_tps"] == pytest.approx(104 / 3.2)
    assert timings["gen_tps"] == pytest.approx(399 / 42.5, rel=1e-3)
    assert timing_fields(GenerationStats(), 0)["gen_tps"] is None
    assert memory_fields(STATS)["expert_hit_rate"] == pytest.approx(0.61)
