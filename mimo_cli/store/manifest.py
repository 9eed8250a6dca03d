"""`mimo_store.json`: what a packed store holds, where it came from, what was lost, and the hash of every file.

A store is a folder with a config.json like any model's. Its dense tensors are safetensors under their official names
(packed ones as `X.weight.packed`), its experts fixed-size records, one file for each MoE layer. docs/store.md tells the
format to those who want to read it with other programs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimo_cli.checkpoint.config import read_json
from mimo_cli.checkpoint.fields import Fields
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.packed import FORMATS, PackedFormat, PackedShape
from mimo_cli.units import format_bytes

STORE_FILE = "mimo_store.json"
JOURNAL_FILE = ".mimo_quantize.jsonl"
"""Stands in a store that is not finished."""

FORMAT_NAME = "mimo-store"
FORMAT_VERSION = 1
RECORD_ALIGNMENT_BYTES = 4096
"""Records begin at multiples of this, so that they can be read past the system's cache."""

_AGAIN = "remove the folder and make the store again with `mimo quantize`"


@dataclass(frozen=True)
class RecordLayout:
    """How experts are stored: `experts-LLL.bin` of MoE layer L holds record e at `e * record_bytes`.

    A record is [gate and up, one stream][down][zeros up to a multiple of 4096].
    """

    format: PackedFormat
    group: int
    hidden_size: int
    width: int
    experts: int
    layers: tuple[int, ...]

    @property
    def up_shape(self) -> PackedShape:
        """gate and up [I, H] in one stream."""
        return PackedShape(self.format, self.group, self.width, self.hidden_size, 2)

    @property
    def down_shape(self) -> PackedShape:
        """down [H, I]."""
        return PackedShape(self.format, self.group, self.hidden_size, self.width)

    @property
    def record_bytes(self) -> int:
        """Bytes from one record to the next."""
        used = self.up_shape.nbytes + self.down_shape.nbytes
        return -(-used // RECORD_ALIGNMENT_BYTES) * RECORD_ALIGNMENT_BYTES

    @property
    def file_bytes(self) -> int:
        """Bytes of the file of one layer."""
        return self.experts * self.record_bytes

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight, with scales and padding."""
        return 8 * self.record_bytes / (3 * self.hidden_size * self.width)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the manifest; sizes are there for readers that do not want to derive them."""
        return {
            "format": self.format,
            "group": self.group,
            "hidden_size": self.hidden_size,
            "width": self.width,
            "experts": self.experts,
            "layers": list(self.layers),
            "files": {str(layer): layer_file(layer) for layer in self.layers},
            "gate_up_bytes": self.up_shape.nbytes,
            "down_bytes": self.down_shape.nbytes,
            "record_bytes": self.record_bytes,
            "bits_per_weight": f"{self.bits_per_weight:.3f}",
        }


def layer_file(layer: int) -> str:
    """Return the name of the file with a layer's experts."""
    return f"experts-{layer:03d}.bin"


@dataclass(frozen=True)
class FileEntry:
    """One file of a store, by its path in the folder."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Loss:
    """What a conversion lost in one part: the root of summed squared errors over that of summed squares, as text."""

    part: str
    was: str
    now: str
    relative_error: str

    def __str__(self) -> str:
        return f"{self.part}: {self.was} -> {self.now}, relative error {float(self.relative_error):.2%}"


@dataclass(frozen=True)
class StoreManifest:
    """Everything a store says about itself. `packed`: dense matrices in packed form by their official names."""

    source: Mapping[str, Any]
    precision: Mapping[str, str]
    records: RecordLayout | None
    packed: Mapping[str, PackedShape]
    files: Mapping[str, FileEntry]
    lossy: tuple[Loss, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        values = {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "source": dict(self.source),
            "precision": dict(self.precision),
            "experts": self.records.to_json() if self.records else None,
            "packed": {name: _shape_to_json(shape) for name, shape in self.packed.items()},
            "lossy": [vars(loss) for loss in self.lossy],
            "files": {name: vars(entry) for name, entry in self.files.items()},
        }
        return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_folder(cls, folder: Path) -> "StoreManifest":
        """Read the manifest of a store. Raises CheckpointError where it is damaged or of a version not known here."""
        path = folder / STORE_FILE
        values = read_json(path)
        where = f"`{path}`"
        if values.get("format") != FORMAT_NAME or type(values.get("version")) is not int:
            raise CheckpointError(f"{where} is not the manifest of a packed store", hint=_AGAIN)
        if values["version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{where} is of version {values['version']}, this program knows versions up to {FORMAT_VERSION}",
                hint="update mimo, or " + _AGAIN,
            )
        try:
            return cls(
                dict(values["source"]),
                {str(key): str(value) for key, value in values["precision"].items()},
                _records(values["experts"], where),
                {str(name): _shape(entry, where) for name, entry in values["packed"].items()},
                {
                    _plain_name(name): FileEntry(int(e["size_bytes"]), str(e["sha256"]))
                    for name, e in values["files"].items()
                },
                tuple(Loss(**{key: str(value) for key, value in entry.items()}) for entry in values["lossy"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise CheckpointError(f"{where} is damaged: {type(err).__name__} {err}", hint=_AGAIN) from err


def is_store(folder: Path) -> bool:
    """Tell whether a folder is a packed store. Raises CheckpointError for one that is not finished."""
    if (folder / STORE_FILE).is_file():
        return True
    if (folder / JOURNAL_FILE).is_file():
        raise CheckpointError(
            f"`{folder}` is a packed store that is not finished",
            hint=f"run the same `mimo quantize SRC {folder}` again; it goes on where it stopped",
        )
    return False


def check_files(folder: Path, manifest: StoreManifest) -> None:
    """Refuse a store with a file that is missing or not as long as the manifest says."""
    for name, entry in manifest.files.items():
        try:
            size_bytes = (folder / name).stat().st_size
        except OSError as err:
            raise CheckpointError(f"`{folder / name}` is missing: {err.strerror or err}", hint=_AGAIN) from err
        if size_bytes != entry.size_bytes:
            kind = "truncated" if size_bytes < entry.size_bytes else "too long"
            raise CheckpointError(
                f"`{folder / name}` is {kind}: {format_bytes(entry.size_bytes)} ({entry.size_bytes:,} bytes) expected, "
                f"{format_bytes(size_bytes)} ({size_bytes:,} bytes) found",
                hint="copy that file again, or " + _AGAIN,
            )


def _shape_to_json(shape: PackedShape) -> dict[str, Any]:
    return {"format": shape.format, "group": shape.group, "rows": shape.rows, "cols": shape.cols}


def _shape(entry: Mapping[str, Any], where: str) -> PackedShape:
    fields = Fields(entry, where)
    return PackedShape(
        _format(fields.text("format"), where),
        fields.integer("group", minimum=1),
        fields.integer("rows", minimum=1, maximum=1 << 31),
        fields.integer("cols", minimum=1, maximum=1 << 31),
    )


def _records(entry: Mapping[str, Any] | None, where: str) -> RecordLayout | None:
    if entry is None:
        return None
    fields = Fields(entry, where)
    layout = RecordLayout(
        _format(fields.text("format"), where),
        fields.integer("group", minimum=1),
        fields.integer("hidden_size", minimum=1, maximum=1 << 24),
        fields.integer("width", minimum=1, maximum=1 << 24),
        fields.integer("experts", minimum=1, maximum=1 << 20),
        fields.integers("layers"),
    )
    if entry["record_bytes"] != layout.record_bytes or entry["gate_up_bytes"] != layout.up_shape.nbytes:
        raise CheckpointError(
            f"{where}: records of {layout.record_bytes} bytes expected, {entry['record_bytes']} found"
        )
    return layout


def _format(name: str, where: str) -> PackedFormat:
    for known in FORMATS:
        if name == known:
            return known
    raise CheckpointError(f"{where}: packed format {name[:40]!r} is not implemented ({', '.join(FORMATS)} are)")


def _plain_name(name: str) -> str:
    """Return a file's path if it stays inside the folder."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"file name {name[:60]!r}")
    return name
