"""A slice is an ordinary engine: all experts in memory, on the kernels, refused where it does not fit."""

import pytest
import torch

from mimo_cli.checkpoint.release_shapes import release_config, slice_config
from mimo_cli.engine import slice as slice_module
from mimo_cli.engine.random_weights import RandomReader, RandomRecords
from mimo_cli.engine.slice import ShapeSpec, build_slice, needed_bytes, require_room
from mimo_cli.errors import CapacityError
from mimo_cli.media.prompt import Prompt
from mimo_cli.quant.linear import PackedLinear
from mimo_cli.quant.random_streams import RandomStreams
from tests.support.kernels import needs_kernels
from tests.support.tiny_shape import EXPERTS, tiny_compute, tiny_spec

GB = 1_000_000_000


def parts(spec: ShapeSpec) -> tuple[RandomReader, RandomRecords]:
    streams = RandomStreams()
    reader = RandomReader(spec.config, spec.dense, spec.routing, streams)
    return reader, RandomRecords(spec.config, spec.experts, streams)


def real_spec(**settings: object) -> ShapeSpec:
    release = release_config("v2.5")
    return ShapeSpec(release, slice_config(release, settings.pop("layers", 3)), **settings)


@needs_kernels
def test_all_experts_are_in_memory_before_the_first_token() -> None:
    spec, heard = tiny_spec(), []
    with build_slice(spec, *parts(spec), tiny_compute(), lambda done, total: heard.append((done, total))) as engine:
        assert engine.experts.misses == EXPERTS * len(spec.config.moe_layers)
        engine.start_sequence(16).prefill(Prompt((1, 2, 3)))
        assert engine.experts.misses == EXPERTS * len(spec.config.moe_layers) and engine.experts.hits > 0
        assert heard[-1][0] == heard[-1][1]


@needs_kernels
@pytest.mark.parametrize("dense", ["keep", "int8", "int4"])
def test_every_matrix_is_computed_by_the_kernels(dense: str) -> None:
    spec = tiny_spec(dense=dense)
    with build_slice(spec, *parts(spec), tiny_compute()) as engine:
        packed = {name for name, module in engine.decoder.named_modules() if isinstance(module, PackedLinear)}
        assert "lm_head" in packed and len(packed) == 1 + 3 * 2 + 3  # qkv and o_proj of each layer, one dense MLP
        assert not engine.has_vision and not engine.has_audio and engine.mtp == []


@needs_kernels
def test_its_logits_do_not_depend_on_how_a_prompt_is_read() -> None:
    spec = tiny_spec(routing="skewed")
    ids = tuple(range(1, 20))
    with build_slice(spec, *parts(spec), tiny_compute()) as engine:
        whole = engine.logits(ids)
        # The same products in batches of other sizes: float32 sums in another order.
        torch.testing.assert_close(engine.logits(ids, chunk_tokens=4), whole, rtol=1e-3, atol=1e-3)
        assert whole.std() > 0.01 and not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        # 256 experts of 8192 x 3072 weights at 4.5, 4.25 and 8.01 bits in two layers; embedding 1.25 GB, others 1.2.
        ({"experts": "int4"}, 2 * 3.62 + 2.4, 2 * 3.62 + 4.5),
        ({"experts": "mxfp4"}, 2 * 3.42 + 2.4, 2 * 3.42 + 4.5),
        ({"experts": "fp8"}, 2 * 6.44 + 2.4, 2 * 6.44 + 4.5),
        ({"experts": "int4", "layers": 2}, 3.62 + 3.0, 3.62 + 4.5),  # one layer beside the memory that is probed
    ],
)
def test_memory_needed_is_that_of_the_real_sizes(settings: dict, low: float, high: float) -> None:
    spec = real_spec(**settings)
    assert low * GB < needed_bytes(spec, *parts(spec), tiny_like_bfloat16()) < high * GB


def tiny_like_bfloat16() -> slice_module.Compute:
    return slice_module.Compute(None, torch.bfloat16, "exact")


def test_a_slice_that_does_not_fit_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = real_spec(experts="fp8")
    monkeypatch.setattr(slice_module, "available_bytes", lambda: 12 * GB)
    with pytest.raises(
        CapacityError, match=r"3 layers with fp8 experts need 1\d(\.\d+)? GB .*6\.4\d* GB.*, 12 GB are free"
    ) as err:
        require_room(spec, *parts(spec), tiny_like_bfloat16())
    assert "--layers" in (err.value.hint or "") and "int4" in (err.value.hint or "")
    monkeypatch.setattr(slice_module, "available_bytes", lambda: 24 * GB)
    require_room(spec, *parts(spec), tiny_like_bfloat16())


def test_its_tokens_are_random_and_always_the_same() -> None:
    spec = tiny_spec(prompt_tokens=(64,), decode_tokens=64).bench
    assert spec.prompt_ids == tiny_spec(prompt_tokens=(64,), decode_tokens=64).bench.prompt_ids
    assert len(spec.prompt_ids) == 64 and spec.decode_ids is not None
    assert len(spec.decode_ids) >= (spec.repeats + 1) * (spec.decode_tokens + 1)  # others in every run, the first warm
    assert len(set(spec.decode_ids)) > 20 and max(spec.prompt_ids) < 64
