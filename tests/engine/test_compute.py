"""Who computes what: native kernels for every stored format, torch elsewhere, the same model either way."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from mimo_cli.engine.bind import module_bytes
from mimo_cli.engine.compute import Compute, choose_compute, pack_linears
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.errors import CheckpointError, UsageError
from mimo_cli.model.binding import text_bindings
from mimo_cli.model.decoder import TextModel
from mimo_cli.offload.dequantized_experts import DequantizedExperts
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.reading import DEFAULT_READING
from mimo_cli.quant.kernels import ISA_VARIABLE, Kernels
from mimo_cli.quant.linear import Linear, PackedLinear
from tests.support.checkpoint_files import open_golden
from tests.support.engines import GOLDEN, MINIATURE, golden_engine, golden_ids, miniature_engine
from tests.support.kernels import kernels, needs_kernels
from tests.support.stores import copied_store, flip_byte
from tests.support.tiny_config import tiny_config

FOLDERS = {"text": GOLDEN / "text", "text_mxfp4": GOLDEN / "text_mxfp4", "miniature": MINIATURE}


def native(name: str) -> Engine:
    return miniature_engine() if name == "miniature" else golden_engine(name)


@cache
def torch_only(name: str, dtype: str = "float32") -> Engine:
    """Load a checkpoint as on a machine without kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ISA_VARIABLE, "none")
        return load_engine(FOLDERS[name], dtype=dtype)


def ids_of(name: str) -> tuple[int, ...]:
    return golden_ids(0 if name == "text_mxfp4" else 1, name) if name != "miniature" else tuple(range(40, 120))


def kinds(module: nn.Module) -> Counter[str]:
    """Count the dense layers of a network: by packed format, or `float`."""
    found = Counter(layer.shape.format for layer in module.modules() if isinstance(layer, PackedLinear))
    return found + Counter("float" for layer in module.modules() if isinstance(layer, Linear))


@needs_kernels
@pytest.mark.parametrize("name", FOLDERS)
def test_every_dense_matrix_and_expert_is_computed_as_it_is_stored(name: str) -> None:
    engine = native(name)
    layers = engine.config.num_hidden_layers
    dense = layers - len(engine.config.moe_layers)
    # qkv and the dense feed-forward are FP8; o_proj and the head stay bfloat16, as released.
    assert kinds(engine.decoder) == {"fp8": layers + 3 * dense, "bf16": layers + 1}
    assert isinstance(engine.experts, ExpertStore)
    assert engine.experts.records.up_shape.format == ("mxfp4" if name == "text_mxfp4" else "fp8")
    assert not any("slower" in note for note in engine.notes) and engine.losses == ()


@needs_kernels
def test_drafts_run_on_the_kernels_too() -> None:
    for module in golden_engine().mtp:
        assert kinds(module) == {"fp8": 4, "bf16": 2}  # qkv and feed-forward; o_proj and eh_proj


@needs_kernels
@pytest.mark.parametrize("name", FOLDERS)
def test_kernels_and_torch_give_the_same_logits(name: str) -> None:
    found, expected = native(name).logits(ids_of(name)), torch_only(name).logits(ids_of(name))
    # 16 bits of the activations: 3e-6 of a product before FP8 and bfloat16 weights, 3e-5 before MXFP4.
    bound = 1e-3 if name == "text_mxfp4" else 2e-4
    assert (found - expected).abs().max() <= bound * expected.abs().max()
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    log_p, log_q = expected.double().log_softmax(-1), found.double().log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    assert divergence <= (1e-6 if name == "text_mxfp4" else 1e-8)


@needs_kernels
def test_drafts_are_the_same_with_and_without_kernels() -> None:
    found, expected = (engine.draft_logits(golden_ids(1)) for engine in (golden_engine(), torch_only("text")))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one[-1].argmax(), other[-1].argmax())
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


@needs_kernels
def test_experts_are_chosen_the_same_with_and_without_kernels() -> None:
    chosen: list[list[torch.Tensor]] = []
    for engine in (golden_engine(), torch_only("text")):
        found: list[torch.Tensor] = []
        hooks = [
            engine.decoder.layers[layer].mlp.gate.register_forward_hook(lambda _m, _i, out, f=found: f.append(out[0]))
            for layer in engine.config.moe_layers
        ]
        engine.logits(golden_ids(2))
        for hook in hooks:
            hook.remove()
        chosen.append([ids.sort(dim=1).values for ids in found])
    assert len(chosen[0]) == len(golden_engine().config.moe_layers)
    assert all(torch.equal(one, other) for one, other in zip(*chosen, strict=True))


@needs_kernels
def test_bfloat16_runs_agree_as_far_as_bfloat16_goes() -> None:
    found = load_engine(FOLDERS["text"], dtype="bfloat16").logits(golden_ids(1))
    expected = torch_only("text", "bfloat16").logits(golden_ids(1))
    exact = golden_engine().logits(golden_ids(1))
    # Both round every activation; the kernels keep FP8 weights whole where torch rounds them to bfloat16 as well.
    assert (found - exact).norm() <= 1.1 * (expected - exact).norm()


@needs_kernels
@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_an_instruction_set_can_be_asked_for(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        Kernels(isa, 1)
    except ValueError:
        pytest.skip(f"this processor lacks {isa}")
    monkeypatch.setenv(ISA_VARIABLE, isa)
    engine = load_engine(FOLDERS["text"], dtype="float32", options=LoadOptions(threads=3))
    assert engine.compute.name == f"{isa}, 3 threads"
    found, expected = engine.logits(golden_ids(1)), golden_engine().logits(golden_ids(1))
    assert (found - expected).abs().max() <= 2e-4 * expected.abs().max()


def test_without_kernels_torch_computes_and_says_so() -> None:
    engine = torch_only("text")
    assert isinstance(engine.experts, DequantizedExperts) and kinds(engine.decoder).keys() == {"float"}
    assert engine.compute.name == "torch"
    assert "computed by torch, which is slower: MIMO_ISA is `none`" in engine.notes


@needs_kernels
def test_budgets_down_to_one_expert_change_no_logit() -> None:
    expected = golden_engine().logits(golden_ids(1))
    for expert_bytes in (0, 50_000, 10**6):
        engine = load_engine(FOLDERS["text"], dtype="float32", options=LoadOptions(expert_bytes=expert_bytes))
        assert torch.equal(engine.logits(golden_ids(1)), expected)


@needs_kernels
def test_packed_matrices_take_the_memory_of_the_stored_ones() -> None:
    config, reader = open_golden("text")
    compute = Compute(kernels(), torch.float32)
    experts = DequantizedExperts.of_shards(reader, config, torch.float32)
    with torch.device("meta"):
        model = TextModel(config, experts)
    whole = module_bytes([model])
    bindings = pack_linears(model, text_bindings(model), reader, compute)
    packed = [binding for binding in bindings if binding.packed]
    assert {binding.parameter for binding in bindings} == model.state_dict().keys()
    stored = sum(layer.data.nbytes for layer in model.modules() if isinstance(layer, PackedLinear))
    floats = sum(4 * binding.packed.rows * binding.packed.cols for binding in packed if binding.packed)
    assert module_bytes([model]) == whole - floats + stored
    assert stored < 0.45 * floats  # 1 byte of FP8 or 2 of bfloat16 instead of 4, and scales


@needs_kernels
def test_a_tied_head_stays_the_embedding() -> None:
    config = tiny_config(tie_word_embeddings=True)
    with torch.device("meta"):
        model = TextModel(config, DequantizedExperts(lambda *_: None, 0))  # type: ignore[arg-type]
    tied = [b for b in text_bindings(model) if b.tensor == "model.embed_tokens.weight"]
    bindings = pack_linears(model, tied, _Unread(), choose_compute(torch.float32))  # type: ignore[arg-type]
    assert bindings == tied and type(model.lm_head) is Linear


class _Unread:
    """Stands for a checkpoint that nobody may look into."""


@needs_kernels
@pytest.mark.parametrize(("name", "loses"), [("text", False), ("text_mxfp4", True)])
def test_int8_activations_are_announced_where_they_lose_something(name: str, loses: bool) -> None:
    engine = load_engine(FOLDERS[name], dtype="float32", options=LoadOptions(precision="int8"))
    said = ("activations are rounded to 8 bits before integer weights",) if loses else ()
    assert engine.losses == said
    found, expected = engine.logits(ids_of(name)), golden_engine(name).logits(ids_of(name))
    assert torch.equal(found, expected) is not loses
    assert (found - expected).norm() <= 0.1 * expected.norm()


def test_without_kernels_a_stores_experts_are_checked_and_its_files_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "none")
    folder = copied_store(tmp_path / "store", "text", "int4")
    options = LoadOptions(reading=replace(DEFAULT_READING, verify=True))

    def open_files() -> int:
        return sum(link.resolve().parent == folder.resolve() for link in Path("/proc/self/fd").iterdir())

    before = open_files()
    for _ in range(2):
        engine = load_engine(folder, options=options)
        engine.logits(golden_ids(0))
        engine.close()
    assert open_files() == before
    for layer in sorted(folder.glob("experts-*.bin")):
        flip_byte(layer, 100)
    with pytest.raises(CheckpointError, match="its checksum is not the recorded one"):
        load_engine(folder, options=options).logits(tuple(range(200)))


def test_what_cannot_be_checked_is_not_silently_left_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "none")
    with pytest.raises(UsageError, match="--verify-experts checks experts as the native kernels read them"):
        load_engine(GOLDEN / "text", options=LoadOptions(reading=replace(DEFAULT_READING, verify=True)))
