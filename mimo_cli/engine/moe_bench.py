"""Measuring one layer of experts: new random experts at every step, far more of them than caches hold.

It is the expert store that every command runs, with all experts of the layer in memory. Decoding is one token to A of
E experts; reading is a prompt that sends 16 tokens to each. Letters: H hidden size, E experts, A active experts.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.read_ceiling import ReadCeiling
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.quant.buffers import PAGE_BYTES, round_up
from mimo_cli.quant.kernels import Precision

TOKENS_PER_EXPERT = 16
"""Of the prompt that is read: a kernel loads each weight once for so many tokens."""

_FILL_EXPERTS = 32


@dataclass(frozen=True)
class MoeLayerSpec:
    """How much is measured: `rounds`, each of `steps` decoded tokens and one prompt, between probes of the ceiling."""

    rounds: int = 7
    steps: int = 24


@dataclass(frozen=True)
class MoeLayerRow:
    """One layer of experts. GB are 1e9 bytes.

    weights_gbps         stored weights and scales of the chosen experts over the time of a decoded token
    read_ceiling_gbps    what plain reads reach in between
    ceiling_share        the median over the rounds of the one over the other
    decode_ms            median of a decoded token; prefill_tps tokens per second of a prompt of `prefill_tokens`
    working_set_bytes    of all experts; weight_bytes of those of one token
    precision            of the activations in the kernels: that of the engine, unless a precision was asked for
    """

    weights_gbps: float
    read_ceiling_gbps: float
    ceiling_share: float
    decode_ms: float
    prefill_tps: float
    prefill_tokens: int
    experts: int
    experts_per_token: int
    bits_per_weight: float
    weight_bytes: int
    working_set_bytes: int
    precision: Precision


def resident_bytes(record_bytes: int, experts: int) -> int:
    """Return the budget under which an expert store keeps so many records."""
    return round_up(record_bytes, PAGE_BYTES) * experts


def fill_layer(
    store: ExpertStore,
    config: ModelConfig,
    layer: int,
    dtype: torch.dtype,
    on_expert: Callable[[int], None] | None = None,
) -> None:
    """Bring every expert of a layer into memory by running it once; `on_expert` is told how many arrived."""
    for first in range(0, config.n_routed_experts, _FILL_EXPERTS):
        ids = torch.arange(first, min(first + _FILL_EXPERTS, config.n_routed_experts))[:, None]
        hidden_states = torch.zeros(len(ids), config.hidden_size, dtype=dtype)
        store.run(layer, hidden_states, ids, torch.ones(ids.shape))
        if on_expert:
            on_expert(len(ids))


def measure_moe_layer(
    store: ExpertStore, config: ModelConfig, layer: int, dtype: torch.dtype, ceiling: ReadCeiling, spec: MoeLayerSpec
) -> MoeLayerRow:
    """Measure a layer whose experts are all in memory. Counts as the store does; leaves the experts where they are."""
    experts, active = config.n_routed_experts, config.num_experts_per_tok
    tokens = max(1, TOKENS_PER_EXPERT * experts // active)
    generator = torch.Generator().manual_seed(2)
    weight_bytes = active * (store.records.up_shape.nbytes + store.records.down_shape.nbytes)

    def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
        hidden_states = torch.randn(count, config.hidden_size, generator=generator).to(dtype)
        ids = torch.rand(count, experts, generator=generator).argsort(dim=1)[:, :active]
        return hidden_states, ids.contiguous(), torch.full((count, active), 1 / active)

    def run(count: int, times: int = 1) -> list[float]:
        seconds = []
        for drawn in [draw(count) for _ in range(times)]:  # drawn before the first is run: nothing runs between
            started = time.perf_counter()
            store.run(layer, *drawn)
            seconds.append(time.perf_counter() - started)
        return seconds

    with torch.inference_mode():
        run(1), run(tokens)  # what is made at the first call is not measured
        decode_s: list[float] = []
        prefill_s: list[float] = []
        shares: list[float] = []
        for _ in range(spec.rounds):
            ceiling_gbps = ceiling.probe()
            round_s = run(1, spec.steps)
            shares.append(weight_bytes / statistics.median(round_s) / 1e9 / ceiling_gbps)
            decode_s += round_s
            prefill_s += run(tokens)
    step_s = statistics.median(decode_s)
    return MoeLayerRow(
        weights_gbps=weight_bytes / step_s / 1e9,
        read_ceiling_gbps=ceiling.gbps,
        ceiling_share=statistics.median(shares),
        decode_ms=step_s * 1000,
        prefill_tps=tokens / statistics.median(prefill_s),
        prefill_tokens=tokens,
        experts=experts,
        experts_per_token=active,
        bits_per_weight=store.records.up_shape.bits_per_weight,
        weight_bytes=weight_bytes,
        working_set_bytes=store.nbytes,
        precision=store.precision,
    )
