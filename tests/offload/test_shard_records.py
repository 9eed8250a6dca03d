"""Records made from shards: an expert's three matrices as stored, and shards that disagree are refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CheckpointError
from mimo_cli.offload.dequantized_experts import DequantizedExperts
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.offload.shard_records import PROJECTIONS, ShardRecords, open_shard_records
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.packed import decode_packed
from tests.support.checkpoint_files import GOLDEN, open_golden, save_tensors
from tests.support.kernels import kernels, needs_kernels

pytestmark = needs_kernels


def open_records(name: str) -> tuple[ShardRecords, CheckpointReader, ModelConfig]:
    config, reader = open_golden(name)
    records = open_shard_records(reader, config, kernels(), torch.float32)
    assert records is not None
    return records, reader, config


def filled(records: ShardRecords, layer: int, expert_ids: list[int]) -> list[Tensor]:
    slots = [allocate_bytes(records.record_bytes) for _ in expert_ids]
    source = RecordSource(records)
    for expert_id, slot in zip(expert_ids, slots, strict=True):
        source.fill(layer, expert_id, slot)
    return slots


@pytest.mark.parametrize("name", ["text", "text_mxfp4"])
def test_a_record_holds_the_expert_exactly(name: str) -> None:
    records, reader, _ = open_records(name)
    for expert_id, record in zip([5, 0], filled(records, 1, [5, 0]), strict=True):
        up, down = record.split([records.up_shape.nbytes, records.down_shape.nbytes])
        streams = [*decode_packed(up.numpy(), records.up_shape), *decode_packed(down.numpy(), records.down_shape)]
        for projection, found in zip(PROJECTIONS, streams, strict=True):
            expected = reader.read(expert_weight_name(1, expert_id, projection), torch.float32)
            assert torch.equal(torch.from_numpy(found), expected)


@pytest.mark.parametrize("name", ["text", "text_mxfp4"])
def test_stored_bytes_are_those_of_the_tensors_with_their_scales(name: str) -> None:
    records, reader, _ = open_records(name)
    names = [expert_weight_name(1, 0, projection) for projection in PROJECTIONS]
    assert records.stored_bytes == sum(reader.stored_bytes(n) for n in names)


@pytest.mark.parametrize("name", ["text", "text_mxfp4"])
def test_records_serve_a_machine_without_kernels_too(name: str) -> None:
    records, reader, config = open_records(name)
    decoded = DequantizedExperts.of_records(RecordSource(records), torch.float32)
    plain = DequantizedExperts.of_shards(reader, config, torch.float32)
    for found, expected in zip(decoded.expert(1, 3), plain.expert(1, 3), strict=True):
        assert torch.equal(found, expected)
    assert decoded.bytes_read == plain.bytes_read and decoded.nbytes == plain.nbytes


def mixed_checkpoint(folder: Path, odd: Tensor, expert_id: int) -> CheckpointReader:
    """Write bfloat16 experts 0 and 1 of layer 1, one down projection of expert `expert_id` being `odd`."""
    config, reader = open_golden("text")
    tensors = {}
    for e in (0, 1):
        for projection in PROJECTIONS:
            name = expert_weight_name(1, e, projection)
            tensors[name] = reader.read(name, torch.bfloat16)
    tensors[expert_weight_name(1, expert_id, "down_proj")] = odd
    folder.mkdir(exist_ok=True)
    save_tensors(folder / "model.safetensors", tensors)
    return CheckpointReader(TensorIndex.open(folder), config)


CONFIG = ModelConfig.from_file(GOLDEN / "text" / "config.json")


def test_an_expert_stored_otherwise_than_the_first_is_refused_by_name(tmp_path: Path) -> None:
    reader = mixed_checkpoint(tmp_path, torch.zeros(128, 32), 1)
    records = open_shard_records(reader, CONFIG, kernels(), torch.float32)
    assert records is not None and records.up_shape.format == "bf16"
    filled(records, 1, [0])
    with pytest.raises(CheckpointError, match=r"experts\.1\.down_proj\.weight.* is stored as plain.*, bf16 .*expected"):
        filled(records, 1, [1])


def test_an_expert_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    reader = mixed_checkpoint(tmp_path, torch.zeros(128, 64).bfloat16(), 1)
    records = open_shard_records(reader, CONFIG, kernels(), torch.float32)
    assert records is not None
    with pytest.raises(CheckpointError, match=r"\[128, 64\], bf16 \[128, 32\] expected"):
        filled(records, 1, [1])


def test_experts_that_would_lose_are_no_records(tmp_path: Path) -> None:
    reader = mixed_checkpoint(tmp_path, torch.zeros(128, 32), 0)  # float32, in a float32 network
    assert open_shard_records(reader, CONFIG, kernels(), torch.float32) is None
    assert open_shard_records(reader, CONFIG, kernels(), torch.bfloat16) is not None


def test_a_model_without_experts_has_no_records() -> None:
    config, reader = open_golden("text")
    dense = replace(config, moe_layer_freq=(0,) * config.num_hidden_layers)
    assert open_shard_records(reader, dense, kernels(), torch.float32) is None
