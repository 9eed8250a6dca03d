"""A release small enough to be measured in tests: four layers of 128 columns, and a slice of three of them."""

from functools import cache
from typing import Any

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.release_shapes import slice_config
from mimo_cli.engine.compute import Compute
from mimo_cli.engine.moe_bench import MoeLayerSpec
from mimo_cli.engine.shape_bench import ShapeReport, run_shape_bench
from mimo_cli.engine.slice import ShapeSpec
from tests.support.kernels import kernels
from tests.support.tiny_config import tiny_config

EXPERTS, ACTIVE = 8, 2


def tiny_release(**overrides: Any) -> ModelConfig:
    """Four layers: global dense, two sliding with experts, global with experts."""
    sizes = {"hidden_size": 128, "moe_intermediate_size": 64, "intermediate_size": 128, "vocab_size": 64}
    experts = {"n_routed_experts": EXPERTS, "num_experts_per_tok": ACTIVE}
    return tiny_config(**{**sizes, **experts, **overrides})


def tiny_spec(**overrides: Any) -> ShapeSpec:
    """Two prompts, a few decoded tokens, a probe of a megabyte."""
    release = tiny_release()
    measured = {"prompt_tokens": (8, 24), "decode_tokens": 12, "repeats": 2}
    small = {"moe_layer": MoeLayerSpec(rounds=2, steps=3), "probe_bytes": 1 << 20}
    return ShapeSpec(**{"release": release, "config": slice_config(release, 3), **measured, **small, **overrides})


def tiny_compute() -> Compute:
    """The kernels in float32."""
    return Compute(kernels(), torch.float32, "exact")


@cache
def tiny_report() -> ShapeReport:
    """One measurement, made once for all tests that only read it."""
    return run_shape_bench(tiny_spec(), tiny_compute())
