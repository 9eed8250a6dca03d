"""Opening a model's folder, whether it is a checkpoint as released or a packed store of one.

The difference ends here: both give an index, a reader and the survey of what is there; a store also gives records.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.contents import Contents, PackedWeights, survey_tensors
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.qkv_layout import QkvChunks
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.checkpoint.storage import refuse_problems
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.packed import GROUPS, PackedShape
from mimo_cli.store.checksums import CHECKSUM_FILE, StoredChecksums
from mimo_cli.store.manifest import StoreManifest, check_files, is_store
from mimo_cli.store.records import StoreRecords

_QKV = ".qkv_proj.weight"


@dataclass(frozen=True)
class OpenModel:
    """An index over a model's dense tensors (all tensors, if it is no store) and the store's manifest, if it is one."""

    folder: Path
    config: ModelConfig
    index: TensorIndex
    manifest: StoreManifest | None

    @cached_property
    def contents(self) -> Contents:
        """What is there, problems and all."""
        return survey_tensors(self.config, self.index, self.packed_weights)

    @property
    def losses(self) -> tuple[str, ...]:
        """What the conversion to this store did not keep exactly, in sentences for the user."""
        return tuple(str(loss) for loss in self.manifest.lossy) if self.manifest else ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights, the audio tokenizer's apart."""
        records = self.manifest.records if self.manifest else None
        experts = records.file_bytes * len(records.layers) if records else 0
        return sum(self.index.shard_bytes.values()) + experts

    @property
    def record_files(self) -> int:
        """Number of files with experts, 0 where they are tensors."""
        return len(self.manifest.records.layers) if self.manifest and self.manifest.records else 0

    @cached_property
    def packed_weights(self) -> PackedWeights:
        """The weights that are not tensors of their own here."""
        if self.manifest is None:
            return {}
        packed: dict[str, tuple[str, int]] = {}
        for name, shape in self.manifest.packed.items():
            packed[name] = shape_label(shape), shape.nbytes
            if name.endswith(_QKV) and self.config.attention_projection_layout == "split":
                prefix = name.removesuffix(_QKV)
                # The configuration names q, k and v, of which the first takes all the bytes.
                packed |= {f"{prefix}.{part}.weight": (shape_label(shape), 0) for part in ("k_proj", "v_proj")}
                packed[f"{prefix}.q_proj.weight"] = shape_label(shape), shape.nbytes
        records = self.manifest.records
        if records:
            sizes = {"gate_proj": records.up_shape.nbytes // 2, "up_proj": records.up_shape.nbytes // 2}
            sizes["down_proj"] = records.record_bytes - sum(sizes.values())
            kind = shape_label(records.up_shape)
            for layer in records.layers:
                for expert in range(records.experts):
                    for projection, size_bytes in sizes.items():
                        packed[expert_weight_name(layer, expert, projection)] = kind, size_bytes
        return packed

    def require_whole(self) -> Contents:
        """Return the contents; raises CheckpointError if a tensor is missing, left over or not of its shape."""
        refuse_problems(self.contents.problems, self.folder)
        return self.contents

    def reader(self, qkv_chunks: QkvChunks | None = None) -> CheckpointReader:
        """Return a reader of the dense tensors."""
        packed = self.manifest.packed if self.manifest else None
        return CheckpointReader(self.index, self.config, qkv_chunks=qkv_chunks, packed=packed)

    def records(self) -> StoreRecords | None:
        """Return the experts of a store; None for a released checkpoint and for a model without experts."""
        if self.manifest is None or self.manifest.records is None:
            return None
        layout = self.manifest.records
        has_checksums = CHECKSUM_FILE in self.manifest.files
        return StoreRecords(self.folder, layout, StoredChecksums(self.folder, layout) if has_checksums else None)


def open_model(folder: Path, config: ModelConfig) -> OpenModel:
    """Open a folder. Reads headers only.

    Raises CheckpointError for a store that is not finished, of a newer version, with files missing or cut, or of
    another model than config.json describes.
    """
    if not is_store(folder):
        return OpenModel(folder, config, TensorIndex.open(folder), None)
    manifest = StoreManifest.from_folder(folder)
    check_files(folder, manifest)
    _check_records(folder, config, manifest)
    return OpenModel(folder, config, TensorIndex.open(folder), manifest)


def _check_records(folder: Path, config: ModelConfig, manifest: StoreManifest) -> None:
    records = manifest.records
    expected = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts, config.moe_layers
    found = (records.hidden_size, records.width, records.experts, records.layers) if records else None
    if (found or config.moe_layers) and found != expected:
        raise CheckpointError(
            f"the experts of `{folder}` are {found}, config.json says {expected} (hidden size, width, number, layers)",
            hint="the store and its config.json belong to different models; make the store again",
        )


def shape_label(shape: PackedShape) -> str:
    """Return the name of a format for people: `INT4 g32`."""
    name = shape.format.upper()
    return f"{name} g{shape.group}" if len(GROUPS[shape.format]) > 1 else name
