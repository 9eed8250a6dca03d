"""The text model against the reference values of the golden sets, and proof that these values bite."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mimo_cli.checkpoint.index import TensorIndex
from tests.support.text_checkpoint import GOLDEN, SEQUENCES, TextCheckpoint, load_text_checkpoint

CASES = [(name, i) for name, count in SEQUENCES.items() for i in range(count)]
LOGITS_MAX = {"text": 2e-3, "text_mxfp4": 1e-3}
"""Largest error accepted in float32. Independent implementations of the reference differ by 1e-4 and 1.2e-5; the range
of the logits is some tens."""


def _rows(golden: TextCheckpoint, i: int, name: str) -> Tensor:
    return golden.expected[f"seq{i}_{name}"].long()


@pytest.mark.parametrize("name, i", CASES)
def test_float32_logits_are_those_of_the_reference(name: str, i: int) -> None:
    golden = load_text_checkpoint(name)
    logits = golden.model.logits(golden.states(golden.ids(i)))[0]
    error = (logits[_rows(golden, i, "logit_rows")] - golden.expected[f"seq{i}_logits"]).abs()
    assert error.max() <= LOGITS_MAX[name]
    assert error.mean() <= 2e-4


@pytest.mark.parametrize("name, i", CASES)
def test_the_residual_stream_is_that_of_the_reference_after_every_layer(name: str, i: int) -> None:
    golden = load_text_checkpoint(name)
    seen: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda *args: seen.append(args[2][0])) for layer in golden.model.layers]
    states = golden.states(golden.ids(i))[0]
    for hook in hooks:
        hook.remove()
    rows = _rows(golden, i, "rows")
    for got, expected in zip(torch.stack(seen)[:, rows], golden.expected[f"seq{i}_hidden_rows"], strict=True):
        assert (got - expected).norm() <= 2e-4 * expected.norm()
    expected = golden.expected[f"seq{i}_final_norm_rows"]
    assert (states[rows] - expected).norm() <= 2e-4 * expected.norm()


@pytest.mark.parametrize("i", [1, 2])
def test_the_window_can_be_128_keys_instead_of_129(i: int) -> None:
    """Public implementations disagree by one key; both conventions are in the reference values."""
    golden = load_text_checkpoint("text", window=127)
    logits = golden.model.logits(golden.states(golden.ids(i)))[0]
    expected = golden.expected[f"seq{i}_logits_w128_rows"]
    rows = _rows(golden, i, "rows")
    assert (logits[rows] - expected).abs().max() <= 2e-3
    wide = load_text_checkpoint("text")
    assert (wide.model.logits(wide.states(wide.ids(i)))[0, rows] - expected).abs().max() > 2e-2


@pytest.mark.parametrize("i", [0, 1, 2])
def test_bfloat16_is_as_close_as_the_reference_class_in_bfloat16(i: int) -> None:
    """Random routers are close to ties, so rounding changes some choices; the bounds are those of the set's README."""
    golden = load_text_checkpoint("text", torch.bfloat16)
    logits = golden.model.logits(golden.states(golden.ids(i)))[0, _rows(golden, i, "logit_rows")]
    expected = golden.expected[f"seq{i}_logits"]
    assert functional.cosine_similarity(logits, expected).median() >= 0.99
    assert (logits.argmax(-1) == expected.argmax(-1)).float().mean() >= 0.65


@pytest.mark.parametrize("i", [0, 1, 2])
def test_bfloat16_with_the_reference_choices_is_close_everywhere(i: int) -> None:
    golden = load_text_checkpoint("text", torch.bfloat16)
    choices = golden.expected[f"seq{i}_router_idx"].long()
    hooks = []
    for layer, expert_ids in zip(golden.config.moe_layers, choices, strict=True):

        def force(router: torch.nn.Module, args: tuple[Tensor], _: object, ids: Tensor = expert_ids) -> tuple:
            weights = functional.linear(args[0].float(), router.weight).sigmoid().gather(1, ids)
            return ids, weights / weights.sum(-1, keepdim=True)

        hooks.append(golden.model.layers[layer].mlp.gate.register_forward_hook(force))
    logits = golden.model.logits(golden.states(golden.ids(i)))[0, _rows(golden, i, "logit_rows")]
    for hook in hooks:
        hook.remove()
    expected = golden.expected[f"seq{i}_logits"]
    assert (logits - expected).abs().mean() <= 0.08
    assert functional.cosine_similarity(logits, expected).min() >= 0.99


def test_bfloat16_over_mxfp4_experts_is_close() -> None:
    golden = load_text_checkpoint("text_mxfp4", torch.bfloat16)
    logits = golden.model.logits(golden.states(golden.ids(0)))[0, _rows(golden, 0, "logit_rows")]
    assert (logits - golden.expected["seq0_logits"]).abs().max() <= 0.3


def _change_one_number(folder: Path, tensor: str, row: int) -> None:
    """Replace the first number x of a row in the shard itself: by 1 - x / 2, an e4m3 code, whose unit is its block's
    scale, by one of half its range and the other sign; of packed numbers flip the lowest bits."""
    info = TensorIndex.open(folder)[tensor]
    offset = info.offset + row * info.size_bytes // info.shape[0]
    with (folder / info.shard.name).open("r+b") as file:
        file.seek(offset)
        stored = torch.frombuffer(bytearray(file.read(info.dtype.itemsize)), dtype=info.dtype)
        changed = stored ^ 3 if info.dtype == torch.uint8 else _another(stored)
        file.seek(offset)
        file.write(changed.view(torch.uint8).numpy().tobytes())


def _another(stored: Tensor) -> Tensor:
    value = stored.float()
    is_code = stored.dtype == torch.float8_e4m3fn
    return (torch.where(value > 0, -224.0, 224.0) if is_code else 1 - value / 2).to(stored.dtype)


EXPERT = "model.layers.1.mlp.experts"
STORED_NUMBERS = [
    ("text", "model.layers.0.self_attn.qkv_proj.weight_scale_inv"),
    ("text", "model.layers.5.self_attn.qkv_proj.weight_scale_inv"),
    ("text", "model.layers.0.mlp.down_proj.weight_scale_inv"),
    ("text", "model.layers.1.self_attn.attention_sink_bias"),
    ("text", "model.layers.1.mlp.gate.e_score_correction_bias"),
    ("text", "model.layers.1.mlp.gate.weight"),
    ("text", f"{EXPERT}.{{used}}.gate_proj.weight_scale_inv"),
    ("text", f"{EXPERT}.{{used}}.down_proj.weight"),
    ("text", "model.layers.2.self_attn.o_proj.weight"),
    ("text", "model.layers.6.input_layernorm.weight"),
    ("text_mxfp4", f"{EXPERT}.{{used}}.up_proj.weight_scale"),
    ("text_mxfp4", f"{EXPERT}.{{used}}.down_proj.weight"),
]


@pytest.mark.parametrize("name, tensor", STORED_NUMBERS)
def test_one_changed_number_of_the_files_moves_the_logits_off_the_reference(
    name: str, tensor: str, tmp_path: Path
) -> None:
    golden = load_text_checkpoint(name)
    used = int(golden.expected["seq0_router_idx"][0, -1, 0])  # an expert that the last token goes to
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    _change_one_number(folder, tensor.format(used=used), row=used if ".mlp.gate." in tensor else 0)
    changed = load_text_checkpoint(name, folder=folder)
    logits = changed.model.logits(changed.states(changed.ids(0)))[0]
    error = (logits - golden.expected["seq0_logits"]).abs().max()
    assert torch.isfinite(logits).all()
    assert error > LOGITS_MAX[name]
