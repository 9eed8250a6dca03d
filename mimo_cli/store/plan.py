"""What a conversion will write, file by file and to the byte, from headers alone; no weight is read.

text.safetensors  mtp.safetensors  vision.safetensors  audio.safetensors    dense tensors, as they are or packed
experts-LLL.bin                                                             the experts of MoE layer L
config.json, tokenizer, template ..., audio_tokenizer/                      copied
model.safetensors.index.json  mimo_store.json                               which dense tensor is where; the manifest
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch

from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.contents import AUDIO_TOKENIZER_FOLDER, Contents, check_tensors
from mimo_cli.checkpoint.index import INDEX_FILE, TensorIndex
from mimo_cli.checkpoint.names import (
    FP8_SCALE,
    MXFP4_SCALE,
    PACKED_SUFFIX,
    NamedWeight,
    audio_weights,
    expert_weights,
    mtp_weights,
    text_weights,
    vision_weights,
)
from mimo_cli.checkpoint.shard_writer import PlannedTensor, shard_layout
from mimo_cli.checkpoint.storage import stored_format
from mimo_cli.errors import CheckpointError, UsageError
from mimo_cli.quant.buffers import PAGE_BYTES
from mimo_cli.quant.packed import GROUPS, SPAN_COLS, PackedFormat, PackedShape
from mimo_cli.store.checksums import CHECKSUM_FILE, checksum_bytes
from mimo_cli.store.manifest import (
    JOURNAL_FILE,
    STORE_FILE,
    FileEntry,
    Loss,
    RecordLayout,
    StoreManifest,
    layer_file,
)

ExpertsFormat = Literal["auto", "int4", "mxfp4", "fp8"]
DenseFormat = Literal["keep", "int8", "int4"]

EXPERTS, DENSE = "experts", "dense"
"""The parts that a conversion may change."""

DEFAULT_GROUP = 32
"""Measured to lose least of the int4 groups, for up to 0.37 bits per weight more (docs/performance.md)."""

_COPIED_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_NOT_COPIED = (INDEX_FILE, STORE_FILE, JOURNAL_FILE)
_NO_HASH = "0" * 64
_NO_ERROR = "0.000e+00"
_SAMPLES, _SAMPLE_BYTES = 16, 4096
"""Blocks of a shard's weights that tell it from another of the same header."""

_QKV_PARTS = ("q_proj", "k_proj", "v_proj")
_PLAIN_MATRICES = (".o_proj.weight", "lm_head.weight", ".eh_proj.weight")
"""Matrices of the network that the releases do not quantise, but a store may."""


@dataclass(frozen=True)
class QuantizeOptions:
    """What to make. experts "auto": MXFP4 where the source has it, int4 elsewhere; `group` is of int4."""

    experts: ExpertsFormat = "auto"
    group: int = DEFAULT_GROUP
    dense: DenseFormat = "keep"

    def __post_init__(self) -> None:
        if self.group not in GROUPS["int4"]:
            raise UsageError(f"groups of {self.group} columns are not possible, 32, 64 or 128 expected")


@dataclass(frozen=True)
class DenseTensor:
    """A tensor of a dense file. `packed` None: copied. `attention`: fused or split q, k and v of `prefix`."""

    stored: PlannedTensor
    weight: str
    packed: PackedShape | None = None
    attention: AttentionConfig | None = None


@dataclass(frozen=True)
class StorePlan:
    """Sizes and contents of a store, with the checkpoint it is made of."""

    source: Path
    config: ModelConfig
    index: TensorIndex
    contents: Contents
    options: QuantizeOptions
    experts_format: PackedFormat
    records: RecordLayout | None
    dense: Mapping[str, tuple[DenseTensor, ...]]
    copies: tuple[str, ...]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file by its path in the store, the manifest last."""
        sizes = {name: _file_bytes(tensors) for name, tensors in self.dense.items()}
        if self.records:
            sizes |= {layer_file(layer): self.records.file_bytes for layer in self.records.layers}
            sizes[CHECKSUM_FILE] = checksum_bytes(self.records)
        sizes |= {name: (self.source / name).stat().st_size for name in self.copies}
        sizes[INDEX_FILE] = len(self.index_bytes)
        files = {name: FileEntry(size, _NO_HASH) for name, size in sizes.items()}
        return {**sizes, STORE_FILE: len(self.manifest(files, {}).to_bytes())}

    @property
    def total_bytes(self) -> int:
        """Bytes of the finished store."""
        return sum(self.sizes.values())

    @cached_property
    def index_bytes(self) -> bytes:
        """The content of the index file of the dense tensors."""
        weight_map = {tensor.stored.name: name for name, tensors in self.dense.items() for tensor in tensors}
        metadata = {key: self.index.metadata[key] for key in ("tp_size",) if key in self.index.metadata}
        values = {"metadata": {**metadata, "save_format": "mimo-store"}, "weight_map": dict(sorted(weight_map.items()))}
        return (json.dumps(values, indent=1) + "\n").encode()

    @cached_property
    def packed(self) -> dict[str, PackedShape]:
        """The dense matrices in packed form by their official names."""
        tensors = [tensor for tensors in self.dense.values() for tensor in tensors]
        return {tensor.weight: tensor.packed for tensor in tensors if tensor.packed}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells this source from another: hashes of its configuration, of the shards' headers and some weights."""
        starts: dict[Path, int] = {}
        for name in self.index:
            info = self.index[name]
            starts[info.shard] = min(info.offset, starts.get(info.shard, info.offset))
        shards = []
        for path, start in sorted(starts.items()):
            size_bytes = self.index.shard_bytes[path]
            with path.open("rb") as file:
                header = hashlib.sha256(file.read(start)).hexdigest()
                weights = _sample_weights(file, start, size_bytes)
            hashes = {"header_sha256": header, "sampled_sha256": weights}
            shards.append({"name": path.name, "size_bytes": size_bytes, **hashes})
        config = hashlib.sha256((self.source / "config.json").read_bytes()).hexdigest()
        return {"name": self.source.resolve().name, "config_sha256": config, "shards": shards}

    @cached_property
    def conversion(self) -> dict[str, Any]:
        """What must be the same for a conversion to go on: the source, and what is made of it."""
        return {"source": self.identity, "precision": self.precision}

    @property
    def precision(self) -> dict[str, str]:
        """The format of each part, as the manifest states it."""
        experts = _label(self.experts_format, self.records.group) if self.records else "none"
        group = DEFAULT_GROUP if self.options.dense == "int4" else SPAN_COLS
        dense = "as released" if self.options.dense == "keep" else _label(self.options.dense, group)
        rest = "as released"
        return {EXPERTS: experts, DENSE: dense, "routers, norms, embeddings": rest, "towers": rest}

    def losses(self, errors: Mapping[str, float]) -> tuple[Loss, ...]:
        """List what is not kept exactly; `errors` has the measured relative error of each part."""
        changed = {}
        if self.records:
            was = self._formats(weight.name for weight in expert_weights(self.config))
            if not _passes_through(was, self.experts_format):
                changed[EXPERTS] = ", ".join(was)
        names = [name for weight in self.packed for name in source_names(weight, self.index)]
        if names:
            changed[DENSE] = ", ".join(self._formats(names))
        return tuple(
            Loss(part, was, self.precision[part], f"{errors[part]:.3e}" if part in errors else _NO_ERROR)
            for part, was in changed.items()
        )

    def manifest(
        self, files: Mapping[str, FileEntry], errors: Mapping[str, float], source: Mapping[str, Any] | None = None
    ) -> StoreManifest:
        """Return the manifest of the finished store; `source` is the identity as it was when the conversion began."""
        return StoreManifest(
            source or self.identity, self.precision, self.records, self.packed, files, self.losses(errors)
        )

    def _formats(self, names: Iterable[str]) -> list[str]:
        return sorted({stored_format(name, self.index) for name in names})


def is_same_conversion(kept: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether a conversion of earlier, as journals and manifests keep it, is the one that is asked for now.

    Weights of a shard that was cut off behind its header since then are taken for the same.
    """

    def known(conversion: Mapping[str, Any]) -> dict[str, Any]:
        source = dict(conversion["source"])
        shards = [{**shard, "sampled_sha256": ""} if shard["name"] in cut_off else shard for shard in source["shards"]]
        return {**conversion, "source": {**source, "shards": shards}}

    cut_off = {shard["name"] for shard in now["source"]["shards"] if shard["sampled_sha256"] == _NO_HASH}
    try:
        return known(kept) == known(now)
    except (KeyError, TypeError):  # of a shape that this version does not write
        return False


def _sample_weights(file: BinaryIO, start: int, size_bytes: int) -> str:
    """Hash blocks spread over a shard's weights, so that other weights of the same shapes are another source.

    Returns _NO_HASH for a shard of which only the header is left.
    """
    if os.fstat(file.fileno()).st_size < size_bytes:
        return _NO_HASH
    found = hashlib.sha256()
    last = max(start, size_bytes - _SAMPLE_BYTES)
    for number in range(_SAMPLES):
        file.seek(start + (last - start) * number // (_SAMPLES - 1))
        found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()


def plan_store(source: Path, options: QuantizeOptions, emptied: Mapping[str, int] | None = None) -> StorePlan:
    """Plan a store. `emptied`: shards of which an earlier run may have left the header only, with the bytes they had.

    Raises CheckpointError where the source is damaged, UsageError for what cannot be made of it."""
    if (source / STORE_FILE).is_file():
        raise UsageError(f"`{source}` is a packed store already", hint="make another from the release's folder")
    config = ModelConfig.from_file(source / "config.json")
    index = TensorIndex.open(source, emptied)
    contents = check_tensors(config, index)
    experts = options.experts
    expert_formats = sorted({stored_format(weight.name, index) for weight in expert_weights(config)})
    if experts == "auto":
        experts = "mxfp4" if expert_formats == ["MXFP4"] else "int4"
    if experts == "fp8" and "FP8" in expert_formats and not _can_pack(config.weight_block_size):
        raise UsageError(f"FP8 with blocks of {config.weight_block_size} cannot be packed", hint="--experts int4")
    group = options.group if experts == "int4" else GROUPS[experts][0]
    records = None
    if config.moe_layers:
        sizes = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts
        records = RecordLayout(experts, group, *sizes, config.moe_layers)
    dense = _dense_files(config, index, contents, options)
    return StorePlan(source, config, index, contents, options, experts, records, dense, _copies(source))


def _file_bytes(tensors: Iterable[DenseTensor]) -> int:
    head, order = shard_layout([tensor.stored for tensor in tensors], PAGE_BYTES)
    return len(head) + sum(tensor.size_bytes for tensor in order)


def _dense_files(
    config: ModelConfig, index: TensorIndex, contents: Contents, options: QuantizeOptions
) -> dict[str, tuple[DenseTensor, ...]]:
    parts: dict[str, list[NamedWeight]] = {
        "text": list(text_weights(config)),
        "mtp": [weight for k in range(contents.num_mtp) for weight in mtp_weights(config, k)],
        "vision": list(vision_weights(config.vision)) if contents.has_vision and config.vision else [],
        "audio": list(audio_weights(config.audio)) if contents.has_audio and config.audio else [],
    }
    files = {}
    for part, weights in parts.items():
        if weights:
            may_pack = options.dense != "keep" and part in ("text", "mtp")
            tensors = [t for weight in weights for t in _dense_tensors(weight, config, index, options, may_pack)]
            files[f"{part}.safetensors"] = tuple(tensors)
    return files


def _dense_tensors(
    weight: NamedWeight, config: ModelConfig, index: TensorIndex, options: QuantizeOptions, may_pack: bool
) -> list[DenseTensor]:
    is_matrix = weight.role in ("linear", "qkv") or weight.name.endswith(_PLAIN_MATRICES)
    if not (may_pack and is_matrix) or options.dense == "keep":
        names = [weight.name, weight.name + FP8_SCALE, weight.name + MXFP4_SCALE]
        infos = [index[name] for name in names if name in index]
        return [DenseTensor(PlannedTensor(info.name, info.dtype, info.shape), info.name) for info in infos]
    name, (rows, cols), attention = weight.name, weight.shape, None
    if weight.role == "qkv":
        attention = config.sliding_attention if weight.sliding else config.global_attention
        prefix, projection = name.removesuffix(".weight").rsplit(".", 1)
        if projection in _QKV_PARTS[1:]:
            return []  # stored with q
        name, rows = f"{prefix}.qkv_proj.weight", attention.qkv_rows
    group = DEFAULT_GROUP if options.dense == "int4" else SPAN_COLS
    shape = PackedShape(options.dense, group, rows, cols)
    stored = PlannedTensor(name + PACKED_SUFFIX, torch.uint8, (shape.nbytes,))
    return [DenseTensor(stored, name, shape, attention)]


def _copies(source: Path) -> tuple[str, ...]:
    """List the files that are copied: everything small beside the shards, and the folder of the audio tokenizer."""
    names = [path.name for path in source.iterdir() if path.suffix in _COPIED_SUFFIXES and _is_copied(path)]
    codec = source / AUDIO_TOKENIZER_FOLDER
    if codec.is_dir():
        suffixes = (*_COPIED_SUFFIXES, ".safetensors")
        inside = [path for path in codec.iterdir() if path.suffix in suffixes and path.is_file()]
        names += [f"{AUDIO_TOKENIZER_FOLDER}/{path.name}" for path in inside if not path.name.startswith(".")]
    if "config.json" not in names:
        raise CheckpointError(f"`{source}` holds no config.json")
    return tuple(sorted(names))


def _is_copied(path: Path) -> bool:
    return path.is_file() and path.name not in _NOT_COPIED and not path.name.startswith(".")


def source_names(weight: str, index: TensorIndex) -> list[str]:
    """Return the stored tensors that a packed matrix is made of."""
    if weight in index:
        return [weight]
    prefix = weight.removesuffix(".qkv_proj.weight")
    return [f"{prefix}.{part}.weight" for part in _QKV_PARTS]


def _passes_through(formats: list[str], experts: PackedFormat) -> bool:
    return formats == [experts.upper()]


def _can_pack(block: tuple[int, int]) -> bool:
    return block[0] % 16 == 0 and block[1] == SPAN_COLS


def _label(kind: str, group: int) -> str:
    return f"{kind} g{group}" if kind == "int4" else kind
