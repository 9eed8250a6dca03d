"""Measuring: every pair of depth and prompt gives a row of what really ran, on one timeline throughout."""

import pytest

from mimo_cli.engine import bench
from mimo_cli.engine.bench import BenchRow, BenchSpec, Sample, bench_text, run_bench
from mimo_cli.engine.generate import Generation
from mimo_cli.errors import UsageError
from mimo_cli.media.prompt import Prompt
from mimo_cli.quant.kernels import missing_reason
from tests.support.engines import GOLDEN, golden_engine, golden_ids, load_changed

IDS = golden_ids(2)


def measure(**settings: object) -> list[BenchRow]:
    values = {"prompt_tokens": (8, 30), "decode_tokens": 4, "depths": (0, 50), "repeats": 2, **settings}
    return run_bench(golden_engine(), BenchSpec(IDS, **values))


def test_every_pair_gives_a_row_shallow_ones_first() -> None:
    rows = measure()
    assert [(row.depth_tokens, row.prompt_tokens, row.context_tokens) for row in rows] == [
        (0, 8, 8),
        (0, 30, 30),
        (50, 8, 58),
        (50, 30, 80),
    ]
    for row in rows:
        assert row.prefill_tps.median > 0 and row.decode_tps.median > 0 and row.ttft_ms.median > 0
        assert row.prefill_tps.low <= row.prefill_tps.median <= row.prefill_tps.high
        assert row.kv_bytes > 0 and row.peak_rss_bytes > 10**7 and 0 <= row.hit_rate <= 1


def test_runs_read_the_prompt_behind_its_depth_and_decode_as_many_tokens_as_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[Generation] = []
    original = bench.generate

    def remember(*args: object, **kwargs: object) -> Generation:
        runs.append(original(*args, **kwargs))
        return runs[-1]

    monkeypatch.setattr(bench, "generate", remember)
    measure(prompt_tokens=(8,), depths=(50,))
    assert len(runs) == 3  # one to warm up, two measured
    for run in runs:
        assert run.prompt == Prompt(IDS[:58]) and run.stats.cached_tokens == 50
        assert run.stats.generated_tokens == 5 and run.stats.context_tokens == 62
        assert run.params.is_greedy and not run.params.stop_ids


def test_a_row_is_told_as_soon_as_it_is_done() -> None:
    seen: list[BenchRow] = []
    rows = run_bench(golden_engine(), BenchSpec(IDS, (8,), 2, (0, 20), 1), seen.append)
    assert seen == rows and len(rows) == 2


def test_only_reading_or_only_decoding_can_be_measured() -> None:
    (reading,) = measure(decode_tokens=0, prompt_tokens=(8,), depths=(0,))
    assert reading.decode_tps is None and reading.bytes_per_token == 0 and reading.prefill_tps.median > 0
    (decoding,) = measure(prompt_tokens=(0,), depths=(40,))
    assert decoding.prefill_tps is None and decoding.ttft_ms is None and decoding.decode_tps.median > 0


def test_cold_runs_read_the_experts_again() -> None:
    engine = load_changed(GOLDEN / "text")
    spec = {"prompt_tokens": (4,), "decode_tokens": 8, "repeats": 2}
    (warm,) = run_bench(engine, BenchSpec(IDS, **spec))
    (cold,) = run_bench(engine, BenchSpec(IDS, **spec, cache_state="cold"))
    assert warm.bytes_per_token == 0 and warm.hit_rate == 1
    assert cold.bytes_per_token > 0 and cold.hit_rate < 1


def test_given_tokens_are_decoded_instead_of_the_models_own(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Generation] = []
    original = bench.generate

    def remember(*args: object, **kwargs: object) -> Generation:
        runs.append(original(*args, **kwargs))
        return runs[-1]

    monkeypatch.setattr(bench, "generate", remember)
    measure(prompt_tokens=(8,), depths=(0,), decode_ids=(9, 8, 7, 6, 5))
    assert [run.tokens for run in runs] == [[9, 8, 7, 6, 5]] * 3


def test_after_the_time_limit_no_further_repeat_begins() -> None:
    rows = measure(repeats=3, time_limit_s=0.0)
    assert [row.repeats for row in rows] == [1] * 4
    assert [row.repeats for row in measure(repeats=3, prompt_tokens=(8,), depths=(0,), time_limit_s=600)] == [3]


def test_a_row_tells_what_is_spent_outside_the_kernels() -> None:
    (row,) = measure(prompt_tokens=(8,), depths=(0,))
    if missing_reason():
        assert row.non_kernel_share is None and row.attention_share is None and row.weight_bytes_per_token == 0
    else:
        assert 0 <= row.attention_share < row.non_kernel_share < 1 and row.weight_bytes_per_token > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_tokens": ()}, "prompt sizes"),
        ({"depths": (-1,)}, "0 or more"),
        ({"repeats": 0}, "one repeat"),
        ({"prompt_tokens": (0,), "decode_tokens": 0}, "measures nothing"),
        ({"decode_tokens": 2, "decode_ids": (1, 2)}, "one more to begin with"),
        ({"prompt_tokens": (300,), "depths": (200,)}, "has 400 tokens, the largest measurement reads 500"),
    ],
)
def test_senseless_measurements_are_usage_errors(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BenchSpec(IDS, **settings)


def test_a_sample_sums_up_the_repeats() -> None:
    assert Sample.of([3.0, 1.0, 2.0]) == Sample(2.0, 1.0, 3.0, 1.0)
    assert Sample.of([5.0]) == Sample(5.0, 5.0, 5.0, 0.0)
    assert Sample.of([]) is None


def test_the_shipped_text_is_prose_long_enough_for_a_default_context() -> None:
    text = bench_text()
    assert len(text) > 32 * 1024 * 4 and len(set(text.split())) > 3000
    assert "Alice" in text and text.isascii()
