"""The tensor index: which shard of a folder holds which tensor, from the headers alone.

`model.safetensors.index.json` says which shards there are; without it a lone `model.safetensors`, or every
`*.safetensors` of the folder. Sub-folders are never entered: they hold other models with colliding names.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mimo_cli.checkpoint.header import ShardHeader, TensorInfo, read_header
from mimo_cli.checkpoint.untrusted import list_some, parse_json_object, shorten
from mimo_cli.errors import CheckpointError

INDEX_FILE = "model.safetensors.index.json"
LONE_FILE = "model.safetensors"

_MAX_INDEX_BYTES = 200_000_000
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".npz")


class TensorIndex:
    """Every tensor of a folder by name, checked against the shards' headers. No weight is read.

    `metadata` is that of the index file (`save_format`, `total_size`, `tp_size`), empty without one.
    """

    def __init__(self, folder: Path, headers: list[ShardHeader], metadata: Mapping[str, Any]) -> None:
        self.folder = folder
        self.metadata = dict(metadata)
        self.shard_bytes: dict[Path, int] = {header.path: header.file_bytes for header in headers}
        """Size of each shard file in bytes when its header was read."""
        self._tensors: dict[str, TensorInfo] = {}
        for header in headers:
            twice = self._tensors.keys() & header.tensors.keys()
            if twice:
                name = min(twice)
                raise CheckpointError(
                    f"tensor `{shorten(name)}` is in two shards: "
                    f"`{self._tensors[name].shard.name}` and `{header.path.name}`",
                    hint="remove the shard that does not belong to this checkpoint",
                )
            self._tensors.update(header.tensors)
        self._names = sorted(self._tensors)

    @classmethod
    def open(cls, folder: Path, emptied: Mapping[str, int] | None = None) -> "TensorIndex":
        """Read the index file and all headers of a folder.

        `emptied`: sizes in bytes that shards had of which only the header is left, by file name.
        Raises CheckpointError for a missing folder or shard, weights in other formats, unsafe file names, damaged
        headers, and every tensor that the index file and the shards do not agree on.
        """
        if not folder.is_dir():
            raise CheckpointError(
                f"`{folder}` is not a folder", hint="name the folder that holds config.json and the shards"
            )
        if (folder / INDEX_FILE).is_file():
            metadata, weight_map = _read_index_file(folder / INDEX_FILE)
            shards = sorted(set(weight_map.values()))
            missing = [shard for shard in shards if not (folder / shard).exists()]
            if missing:
                raise CheckpointError(
                    f"{len(missing)} of {len(shards)} shards are missing in `{folder}`: {list_some(missing)}",
                    hint="the download is incomplete; fetch those shards",
                )
            sizes = emptied or {}
            index = cls(folder, [read_header(folder / shard, sizes.get(shard)) for shard in shards], metadata)
            index._check_weight_map(weight_map)
            return index
        lone = folder / LONE_FILE
        paths = [lone] if lone.is_file() else sorted(path for path in folder.glob("*.safetensors") if path.is_file())
        if not paths:
            raise _no_weights(folder)
        return cls(folder, [read_header(path, (emptied or {}).get(path.name)) for path in paths], {})

    def _check_weight_map(self, weight_map: Mapping[str, str]) -> None:
        """Refuse tensors that the index file lists but no shard holds there, and tensors it does not list."""
        for name, shard in weight_map.items():
            info = self._tensors.get(name)
            if info is None or info.shard.name != shard:
                found = f"found in `{info.shard.name}`" if info else "not found"
                raise CheckpointError(
                    f"tensor `{shorten(name)}` is missing in `{shard}`, where `{INDEX_FILE}` expects it: {found}",
                    hint="fetch that shard and the index file again; they belong to different versions",
                )
        left_over = [name for name in self._names if name not in weight_map]
        if left_over:
            raise CheckpointError(
                f"`{INDEX_FILE}` does not list {len(left_over)} tensors of its shards: {list_some(left_over)} "
                f"(in `{self._tensors[left_over[0]].shard.name}`)",
                hint="fetch the index file again; it belongs to another version of the shards",
            )

    def names(self) -> list[str]:
        """Return all names in alphabetical order."""
        return list(self._names)

    def with_prefix(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, in alphabetical order."""
        names = []
        for position in range(bisect_left(self._names, prefix), len(self._names)):
            if not self._names[position].startswith(prefix):
                break
            names.append(self._names[position])
        return names

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> TensorInfo:
        """Return where a tensor lies; raises CheckpointError if there is none of that name."""
        try:
            return self._tensors[name]
        except KeyError:
            raise CheckpointError(
                f"tensor `{name}` is missing in `{self.folder}`",
                hint="fetch the checkpoint again, or check its config.json",
            ) from None


def _read_index_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the metadata and the weight map (tensor name -> file name) of an index file."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > _MAX_INDEX_BYTES:
            raise CheckpointError(f"`{path}` has {size_bytes} bytes, at most {_MAX_INDEX_BYTES} expected")
        values = parse_json_object(path.read_bytes(), f"`{path}`")
    except OSError as err:
        raise CheckpointError(f"`{path}` cannot be read: {err.strerror or err}") from err
    weight_map, metadata = values.get("weight_map"), values.get("metadata") or {}
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(metadata, dict):
        raise CheckpointError(f"`{path}` has no `weight_map`", hint="fetch the index file again")
    for name, shard in weight_map.items():
        if not _is_plain_shard_name(shard):
            raise CheckpointError(
                f"`{path.name}` places tensor `{shorten(name)}` in `{shorten(shard)}`: "
                "the name of a .safetensors file in the same folder expected"
            )
    return metadata, weight_map


def _is_plain_shard_name(name: Any) -> bool:
    """Tell whether a file name stays inside the folder: no separators of any system, no control characters."""
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and name.isprintable()
        and not name.startswith(".")
        and not any(character in name for character in "/\\:")
    )


def _no_weights(folder: Path) -> CheckpointError:
    others = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _OTHER_WEIGHTS)
    if others:
        return CheckpointError(
            f"`{folder}` holds no safetensors, only {list_some(others)}",
            hint="only .safetensors is read (pickle files can run code, other formats lose the release's storage); "
            "fetch the safetensors release",
        )
    return CheckpointError(
        f"`{folder}` holds no weights: neither `{INDEX_FILE}` nor a .safetensors file",
        hint="name the folder that holds config.json and the shards",
    )
