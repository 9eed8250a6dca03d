"""Measuring a slice: real calls of the kernels, every number from what ran."""

from typing import Any

import pytest
import torch

from mimo_cli.engine.compute import Compute
from mimo_cli.engine.forecast import LayerTimes, extrapolate
from mimo_cli.engine.shape_bench import run_shape_bench
from mimo_cli.errors import MimoError
from mimo_cli.quant.kernels import Kernels
from tests.support.kernels import kernels, needs_kernels
from tests.support.tiny_shape import ACTIVE, EXPERTS, tiny_compute, tiny_report, tiny_spec


@needs_kernels
def test_rows_are_those_of_every_benchmark_shortest_context_first() -> None:
    report = tiny_report()
    assert [row.row.context_tokens for row in report.rows] == [8, 24]
    for measured in report.rows:
        row = measured.row
        assert row.prefill_tps.median > 0 and row.decode_tps.median > 0 and row.ttft_ms.median > 0
        assert row.hit_rate == 1 and row.bytes_per_token == 0 and row.repeats == 2
        assert row.kv_bytes > 0 and row.peak_rss_bytes > 10**7
        assert 0 <= row.attention_share < row.non_kernel_share < 1
        assert measured.read_ceiling_gbps > 0


@needs_kernels
def test_bytes_per_token_are_all_weights_that_a_token_needs() -> None:
    report = tiny_report()
    hidden, width, vocabulary = 128, 64, 64
    qkv = {"global": 4 * 12 + 12 + 8, "sliding": 4 * 12 + 2 * 12 + 2 * 8}
    # int8: a float16 scale per row and 128 columns; rows are padded to 16, columns to 128.
    dense_rows = 2 * -(-qkv["global"] // 16) * 16 + -(-qkv["sliding"] // 16) * 16 + 3 * hidden + 3 * 128 + vocabulary
    dense = dense_rows * (128 + 2)
    # int4 in groups of 32: four and a half bits; down has 64 of 128 columns.
    experts = 2 * ACTIVE * (2 * width + hidden) * 128 * 4.5 / 8
    for measured in report.rows:
        assert measured.row.weight_bytes_per_token == dense + experts
        tps = measured.weights_gbps * 1e9 / measured.row.weight_bytes_per_token  # of all runs together
        assert measured.row.decode_tps.low * (1 - 1e-6) <= tps <= measured.row.decode_tps.high * (1 + 1e-6)


@needs_kernels
def test_the_kernels_run_every_step_of_the_slice() -> None:
    spec = tiny_spec(prompt_tokens=(8,), repeats=1)
    before = kernels().use.calls
    run_shape_bench(spec, tiny_compute())
    passes = 2 * (1 + spec.decode_tokens)  # one run to warm up, one measured; the prompt is one pass
    layer_calls = 3 * 2 + 3 + 2  # qkv and o_proj, the dense MLP, two layers of experts
    alone = 2 + spec.moe_layer.rounds * (spec.moe_layer.steps + 1)
    fills = kernels().use.calls - before - passes * (layer_calls + 1) - alone
    # Three layers are filled, that measured alone and two of the slice; experts are computed as they arrive.
    assert 3 <= fills <= 3 * spec.config.n_routed_experts


@needs_kernels
@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, "bfloat16"), (torch.float32, "exact")])
def test_the_layer_alone_has_the_precision_that_chat_has(
    dtype: torch.dtype, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    compute_moe = Kernels.moe

    def moe(self: Kernels, *arguments: Any) -> None:
        seen.add(arguments[-1])
        compute_moe(self, *arguments)

    monkeypatch.setattr(Kernels, "moe", moe)
    report = run_shape_bench(tiny_spec(prompt_tokens=(8,), repeats=1), Compute(kernels(), dtype))
    assert seen == {expected} == {report.moe_layer.precision}


@needs_kernels
def test_routing_of_decoded_tokens_is_told() -> None:
    routing = tiny_report().routing
    assert routing.kind == "uniform" and min(routing.experts_used) > EXPERTS // 2
    assert all(ACTIVE / EXPERTS <= share < 0.8 for share in routing.top_share)
    assert routing.working_set_bytes > 0


@needs_kernels
def test_skewed_routing_prefers_few_experts() -> None:
    spec = tiny_spec(routing="skewed", prompt_tokens=(4,), decode_tokens=60, repeats=1)
    skewed = run_shape_bench(spec, tiny_compute()).routing
    assert min(skewed.top_share) > 1.1 * max(tiny_report().routing.top_share)


@needs_kernels
def test_the_estimate_is_made_of_the_layers_measured() -> None:
    report = tiny_report()
    for measured, estimate in zip(report.rows, report.extrapolated, strict=True):
        assert (estimate.layers, estimate.global_layers, estimate.sliding_layers) == (4, 2, 2)
        assert estimate.context_tokens == measured.row.context_tokens
        layers = LayerTimes(tuple(ms / 1000 for ms in measured.layer_decode_ms), 0.0)
        without_rest = extrapolate(report.spec.config, report.spec.release, layers)
        assert without_rest is not None and 0 < estimate.decode_tps < 1 / without_rest
        assert estimate.prefill_tps > 0


@needs_kernels
@pytest.mark.parametrize("experts", ["mxfp4", "fp8"])
def test_other_formats_run_and_state_their_bits(experts: str) -> None:
    report = run_shape_bench(tiny_spec(experts=experts, dense="keep", prompt_tokens=(4,), repeats=1), tiny_compute())
    assert set(report.bits_per_weight) == {"experts", "qkv_proj", "o_proj", "mlp", "lm_head"}
    assert report.bits_per_weight["lm_head"] == 16 and report.bits_per_weight["mlp"] < 9
    assert report.moe_layer.bits_per_weight == report.bits_per_weight["experts"]


@needs_kernels
def test_lossy_activations_are_told() -> None:
    compute = Compute(kernels(), torch.float32, "int8")
    report = run_shape_bench(tiny_spec(prompt_tokens=(4,), repeats=1), compute)
    assert report.losses and "8 bits" in report.losses[0] and not tiny_report().losses


@needs_kernels
def test_stages_are_told_as_they_begin() -> None:
    stages: list[str] = []
    run_shape_bench(tiny_spec(prompt_tokens=(4,), repeats=1), tiny_compute(), on_stage=stages.append)
    assert stages == ["measuring one layer of experts", "filling the slice", "measuring 1 of 1"]


def test_without_kernels_there_is_nothing_to_measure() -> None:
    with pytest.raises(MimoError, match="measures the native kernels, and there are none"):
        run_shape_bench(tiny_spec(), Compute(None, torch.float32, "exact"))
