"""One packed tensor by its name: the numbers that the reference decoder gives, from the bytes the layout says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.packed import decode_packed
from mimo_cli.store.manifest import layer_file
from mimo_cli.store.opened import OpenModel, open_model
from mimo_cli.store.tensors import packed_tensor
from tests.support.stores import SOURCES, copied_store, made_store


def _open(folder: Path) -> OpenModel:
    return open_model(folder, ModelConfig.from_file(folder / "config.json"))


def test_matrices_of_an_expert_are_found_in_its_record() -> None:
    opened = _open(made_store("text", "int4"))
    assert opened.manifest is not None and opened.manifest.records is not None
    layout = opened.manifest.records
    layer, expert = layout.layers[1], 3
    data = np.fromfile(opened.folder / layer_file(layer), np.uint8).reshape(layout.experts, -1)[expert]
    middle = layout.up_shape.nbytes
    expected = [*decode_packed(data[:middle], layout.up_shape)]
    expected += decode_packed(data[middle : middle + layout.down_shape.nbytes], layout.down_shape)
    for projection, matrix in zip(("gate_proj", "up_proj", "down_proj"), expected, strict=True):
        found = packed_tensor(opened, f"model.layers.{layer}.mlp.experts.{expert}.{projection}.weight")
        assert found is not None and torch.equal(found.numbers(), torch.from_numpy(matrix))


def test_a_packed_dense_matrix_is_near_the_source() -> None:
    opened = _open(made_store("text", "int4", 32, "int8"))
    found = packed_tensor(opened, "lm_head.weight")
    source = _open(SOURCES["text"]).reader().read("lm_head.weight", torch.float32)
    assert found is not None and found.shape.format == "int8"
    assert float((found.numbers() - source).norm() / source.norm()) < 0.011  # 1/254 of the largest of a group


@pytest.mark.parametrize(
    "name",
    [
        "model.norm.weight",
        "model.layers.1.mlp.experts.99.up_proj.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
    ],
)
def test_other_names_are_no_packed_tensors(name: str) -> None:
    assert packed_tensor(_open(made_store("text", "int4")), name) is None
    assert packed_tensor(_open(SOURCES["text"]), name) is None


def test_a_file_cut_since_it_was_opened_is_named(tmp_path: Path) -> None:
    opened = _open(copied_store(tmp_path / "store", "text", "int4"))
    assert opened.manifest is not None and opened.manifest.records is not None
    layer = opened.manifest.records.layers[0]
    found = packed_tensor(opened, f"model.layers.{layer}.mlp.experts.1.down_proj.weight")
    assert found is not None
    with (opened.folder / layer_file(layer)).open("r+b") as file:
        file.truncate(found.offset + 10)
    with pytest.raises(CheckpointError, match="is truncated"):
        found.numbers()
