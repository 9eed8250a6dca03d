"""Filling modules: nothing has memory before it is read, everything is read once, and the sum is told beforehand."""

import pytest
import torch
from torch import nn

from mimo_cli.engine import bind
from mimo_cli.engine.bind import Loader, build_empty, module_bytes, require_memory
from mimo_cli.errors import CapacityError, CheckpointError
from mimo_cli.model.binding import text_bindings
from mimo_cli.model.decoder import TextModel
from tests.support.checkpoint_files import open_golden
from tests.support.tiny_config import tiny_config


def test_an_empty_module_has_shapes_and_no_memory() -> None:
    module = build_empty(lambda: nn.Linear(10**6, 10**6), torch.bfloat16)
    assert module.weight.is_meta and module.weight.dtype == torch.bfloat16
    assert module_bytes([module]) == 2 * (10**12 + 10**6)


def test_memory_that_is_there_is_granted_and_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bind, "available_bytes", lambda: 5 * 10**9)
    require_memory(5 * 10**9, "it")
    with pytest.raises(CapacityError, match=r"the model needs 12 GB of memory, 5 GB are free") as caught:
        require_memory(12 * 10**9, "the model")
    assert caught.value.exit_code == 4 and caught.value.hint


def test_a_bound_model_has_the_weights_of_the_checkpoint() -> None:
    config, reader = open_golden("text_mxfp4")
    model = build_empty(lambda: TextModel(config, _NoExperts()))
    loader = Loader(module_bytes([model]))
    loader.bind(model, reader, text_bindings(model))
    assert loader.loaded_bytes == loader.total_bytes
    expected = reader.read("model.layers.0.mlp.gate_proj.weight", torch.float32)
    assert torch.equal(model.layers[0].mlp.gate_proj.weight, expected)
    attention = config.attention(1)
    assert torch.equal(
        model.layers[1].self_attn.qkv_proj.weight, reader.qkv("model.layers.1.self_attn", attention, torch.float32)
    )


class _NoExperts:
    def run(self, layer: int, *tensors: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def test_a_tied_head_is_read_once_and_shares_its_memory() -> None:
    config = tiny_config(tie_word_embeddings=True)
    model = build_empty(lambda: TextModel(config, _NoExperts()))
    reader = _CountingReader(model)
    Loader(0).bind(model, reader, text_bindings(model))
    assert reader.names.count("model.embed_tokens.weight") == 1
    assert model.lm_head.weight.data_ptr() == model.embed_tokens.weight.data_ptr()


class _CountingReader:
    """Stands for a checkpoint whose every tensor is zero."""

    def __init__(self, model: TextModel) -> None:
        self.names: list[str] = []

    def read(self, name: str, dtype: torch.dtype, *, shape: tuple[int, ...]) -> torch.Tensor:
        self.names.append(name)
        return torch.zeros(shape, dtype=dtype)

    def drop(self, names: list[str], *, from_cache: bool) -> None:
        """There are no pages to let go."""

    def mapped(self, name: str, dtype: torch.dtype) -> None:
        """No tensor is large enough to stay in its file."""

    def qkv(self, prefix: str, attention: object, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(attention.qkv_rows, 16, dtype=dtype)


def test_a_missing_tensor_of_a_prefix_is_named() -> None:
    _, reader = open_golden("text_mxfp4")
    with pytest.raises(CheckpointError, match=r"visual\.weight"):
        Loader(0).bind_prefix(build_empty(lambda: nn.Linear(2, 2)), reader, "visual.")
