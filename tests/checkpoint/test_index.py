"""The index: what the folder says it holds and what its shards hold must be the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mimo_cli.checkpoint.config import read_json
from mimo_cli.checkpoint.index import INDEX_FILE, TensorIndex
from mimo_cli.errors import CheckpointError
from tests.support.checkpoint_files import GOLDEN, copy_golden, save_tensors

EXPERT = "model.layers.1.mlp.experts.5.up_proj.weight"
ONE = {"a": torch.ones(2, 2)}


def write_index(folder: Path, weight_map: dict[str, Any], metadata: Any = None) -> None:
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": metadata or {}, "weight_map": weight_map}))


def test_the_index_holds_every_tensor_of_the_weight_map() -> None:
    index = TensorIndex.open(GOLDEN / "text")
    weight_map = read_json(GOLDEN / "text" / INDEX_FILE)["weight_map"]
    assert index.names() == sorted(weight_map) and len(index) == len(weight_map)
    assert all(index[name].shard.name == shard for name, shard in weight_map.items())
    assert index.metadata["tp_size"] == 2 and index.metadata["save_format"] == "fp8"
    assert index.metadata["total_size"] == sum(index[name].size_bytes for name in index)
    assert EXPERT in index and "model.layers.1.mlp.experts.99.up_proj.weight" not in index


@pytest.mark.parametrize(
    "prefix", ["model.mtp.layers.1.", "model.layers.1", "lm_head", "", "zzz", "model.layers.6.mlp."]
)
def test_prefixes_find_what_a_scan_finds(prefix: str) -> None:
    index = TensorIndex.open(GOLDEN / "text")
    assert index.with_prefix(prefix) == [name for name in index.names() if name.startswith(prefix)]


def test_asking_for_an_absent_tensor_names_it() -> None:
    with pytest.raises(CheckpointError, match="`nothing` is missing in"):
        TensorIndex.open(GOLDEN / "text")["nothing"]


def test_a_lone_file_needs_no_index(tmp_path: Path) -> None:
    save_tensors(tmp_path / "model.safetensors", ONE)
    save_tensors(tmp_path / "other.safetensors", {"b": torch.ones(1)})
    assert TensorIndex.open(tmp_path).names() == ["a"]


def test_without_index_and_lone_file_all_shards_are_read(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", ONE)
    save_tensors(tmp_path / "y.safetensors", {"b": torch.ones(1)})
    assert TensorIndex.open(tmp_path).names() == ["a", "b"]


def test_sub_folders_are_never_entered(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", ONE)
    (tmp_path / "dflash").mkdir()
    (tmp_path / "dflash" / "model.safetensors").write_bytes(b"not even a header")
    assert TensorIndex.open(tmp_path).names() == ["a"]


def test_files_that_the_index_does_not_name_are_left_alone(tmp_path: Path) -> None:
    folder = copy_golden("text_mxfp4", tmp_path / "model")
    (folder / "stray.safetensors").write_bytes(b"garbage")
    assert len(TensorIndex.open(folder)) == len(TensorIndex.open(GOLDEN / "text_mxfp4"))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = copy_golden("text_mxfp4", tmp_path / "model")
    (folder / "model_pp0_ep1_shard0.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards are missing in .*`model_pp0_ep1_shard0\.safetensors`"):
        TensorIndex.open(folder)


@pytest.mark.parametrize(
    "shard",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "dflash/model.safetensors",
        "dflash\\model.safetensors",
        "C:model.safetensors",
        "..",
        ".safetensors",
        "model.bin",
        "model.safetensors\x00",
        "a\n.safetensors",
        7,
        None,
    ],
)
def test_a_shard_name_that_leaves_the_folder_is_refused(shard: Any, tmp_path: Path) -> None:
    save_tensors(tmp_path / "model.safetensors", ONE)
    write_index(tmp_path, {"a": shard})
    with pytest.raises(CheckpointError, match="in the same folder expected"):
        TensorIndex.open(tmp_path)


def test_a_listed_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", ONE)
    write_index(tmp_path, {"a": "x.safetensors", "b": "x.safetensors"})
    with pytest.raises(CheckpointError, match=r"`b` is missing in `x\.safetensors`.* not found"):
        TensorIndex.open(tmp_path)


def test_a_tensor_in_another_shard_than_listed_is_named(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", ONE)
    save_tensors(tmp_path / "y.safetensors", {"b": torch.ones(1)})
    write_index(tmp_path, {"a": "y.safetensors", "b": "x.safetensors"})
    with pytest.raises(CheckpointError, match=r"`a` is missing in `y\.safetensors`.* found in `x\.safetensors`"):
        TensorIndex.open(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", ONE)
    save_tensors(tmp_path / "y.safetensors", ONE)
    with pytest.raises(CheckpointError, match=r"`a` is in two shards: `x\.safetensors` and `y\.safetensors`"):
        TensorIndex.open(tmp_path)


def test_left_over_tensors_are_named_with_their_shard(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.safetensors", {**ONE, "b": torch.ones(1)})
    write_index(tmp_path, {"a": "x.safetensors"})
    with pytest.raises(CheckpointError, match=r"does not list 1 tensors of its shards: `b` \(in `x.safetensors`\)"):
        TensorIndex.open(tmp_path)


def test_a_truncated_shard_stops_the_opening(tmp_path: Path) -> None:
    folder = copy_golden("text_mxfp4", tmp_path / "model")
    shard = folder / "model_pp0_ep1_shard0.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"`model_pp0_ep1_shard0\.safetensors` is truncated"):
        TensorIndex.open(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"a": 1}', "null"]
)
def test_an_index_file_without_a_weight_map_is_refused(text: str, tmp_path: Path) -> None:
    save_tensors(tmp_path / "model.safetensors", ONE)
    (tmp_path / INDEX_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=INDEX_FILE):
        TensorIndex.open(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model-Q4.gguf"])
def test_other_weight_files_are_refused_with_a_hint(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match=f"holds no safetensors, only `{name}`") as error:
        TensorIndex.open(tmp_path)
    assert error.value.hint and "safetensors release" in error.value.hint


def test_an_empty_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        TensorIndex.open(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        TensorIndex.open(GOLDEN / "text" / INDEX_FILE)
    with pytest.raises(CheckpointError, match="is not a folder"):
        TensorIndex.open(tmp_path / "nowhere")
