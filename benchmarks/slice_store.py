"""A packed store of a few layers of a release's real sizes, with random weights, for measuring loading and reading.

    python -m benchmarks.slice_store FOLDER [--layers 3] [--experts int4] [--dense int8]

3 layers are global dense, sliding with experts, global with experts: 9.1 GB with int4 experts. The tokenizer is the
bundled miniature's, whose ids are small, so that `mimo chat -m FOLDER` runs; what it says means nothing.
"""

import argparse
import shutil
from pathlib import Path

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.index import INDEX_FILE
from mimo_cli.checkpoint.names import PACKED_SUFFIX, text_weights
from mimo_cli.checkpoint.release_shapes import release_config, slice_config
from mimo_cli.checkpoint.shard_writer import PlannedTensor, shard_layout, write_json
from mimo_cli.engine.random_weights import RandomReader
from mimo_cli.miniature.bundled import bundled_path
from mimo_cli.quant.buffers import PAGE_BYTES, allocate_bytes
from mimo_cli.quant.packed import GROUPS, PackedFormat
from mimo_cli.quant.random_streams import RandomStreams
from mimo_cli.store.manifest import STORE_FILE, FileEntry, RecordLayout, StoreManifest, layer_file
from mimo_cli.store.output import OutputFile, file_entry
from mimo_cli.store.plan import DEFAULT_GROUP, DenseFormat

TEXT_FILE = "text.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json")


def write_dense(folder: Path, config: ModelConfig, reader: RandomReader) -> FileEntry:
    """Write every dense tensor under its official name; matrices as packed streams."""
    planned, official = [], {}
    for weight in text_weights(config):
        shape = reader.shapes.get(weight.name)
        dtype = torch.bfloat16 if weight.role != "float32" else torch.float32
        tensor = PlannedTensor(weight.name, dtype, weight.shape)
        if shape:
            tensor = PlannedTensor(weight.name + PACKED_SUFFIX, torch.uint8, (shape.nbytes,))
        planned.append(tensor)
        official[tensor.name] = weight.name
    head, order = shard_layout(planned, PAGE_BYTES)
    with OutputFile(folder / TEXT_FILE, direct=True) as file:
        file.write(head)
        for tensor in order:
            name = official[tensor.name]
            stored = reader.stored(name).weight if name in reader.shapes else reader.read(name, tensor.dtype)
            file.write(stored.contiguous().view(-1).view(torch.uint8).numpy().data)
        entry = file.commit()
    weight_map = {tensor.name: TEXT_FILE for tensor in planned}
    write_json(folder / INDEX_FILE, {"metadata": {"save_format": "mimo-store"}, "weight_map": weight_map})
    return entry


def write_experts(path: Path, layout: RecordLayout, layer: int, streams: RandomStreams) -> FileEntry:
    """Write the records of a layer."""
    record, middle = allocate_bytes(layout.record_bytes), layout.up_shape.nbytes
    with OutputFile(path, direct=True) as file:
        for expert in range(layout.experts):
            key = layer << 32 | expert
            streams.fill(layout.up_shape, record[:middle], key)
            streams.fill(layout.down_shape, record[middle : middle + layout.down_shape.nbytes], key)
            file.write(record.numpy().data)
        return file.commit()


def write_slice(folder: Path, layers: int, experts: PackedFormat, dense: DenseFormat) -> StoreManifest:
    """Write a store; returns its manifest."""
    folder.mkdir(parents=True)
    config = slice_config(release_config("v2.5"), layers)
    raw = {key: value for key, value in config.raw.items() if key not in ("vision_config", "audio_config")}
    write_json(folder / "config.json", {**raw, "num_nextn_predict_layers": 0})
    config = ModelConfig.from_file(folder / "config.json")
    streams = RandomStreams()
    reader = RandomReader(config, dense, "uniform", streams)
    group = DEFAULT_GROUP if experts == "int4" else GROUPS[experts][0]
    sizes = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts
    layout = RecordLayout(experts, group, *sizes, config.moe_layers)
    files = {TEXT_FILE: write_dense(folder, config, reader)}
    for layer in config.moe_layers:
        files[layer_file(layer)] = write_experts(folder / layer_file(layer), layout, layer, streams)
    for name in TOKENIZER_FILES:
        shutil.copy(bundled_path() / name, folder)
    for name in ("config.json", INDEX_FILE, *TOKENIZER_FILES):
        files[name] = file_entry(folder / name)
    packed = reader.shapes
    precision = {"experts": experts, "dense": dense}
    manifest = StoreManifest({"name": "random"}, precision, layout, packed, files)
    (folder / STORE_FILE).write_bytes(manifest.to_bytes())
    return manifest


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--experts", default="int4", choices=("int4", "mxfp4", "fp8"))
    parser.add_argument("--dense", default="int8", choices=("int8", "int4"))
    options = parser.parse_args()
    manifest = write_slice(options.folder, options.layers, options.experts, options.dense)
    print(f"{sum(entry.size_bytes for entry in manifest.files.values()):,} bytes in {options.folder}")


if __name__ == "__main__":
    main()
