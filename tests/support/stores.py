"""Packed stores of the small checkpoints, made once per process, and copies that may be damaged."""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.store.convert import convert
from mimo_cli.store.manifest import STORE_FILE
from mimo_cli.store.plan import QuantizeOptions, StorePlan, plan_store
from tests.support.engines import GOLDEN, MINIATURE

SOURCES = {"miniature": MINIATURE, "text": GOLDEN / "text", "text_mxfp4": GOLDEN / "text_mxfp4"}
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def make_plan(name: str = "text", experts: str = "auto", group: int = 32, dense: str = "keep") -> StorePlan:
    """Plan a store of a named checkpoint."""
    return plan_store(SOURCES[name], QuantizeOptions(experts, group, dense))  # type: ignore[arg-type]


_kept: list[tempfile.TemporaryDirectory[str]] = []


@cache
def made_store(name: str = "text", experts: str = "auto", group: int = 32, dense: str = "keep") -> Path:
    """Make a store once per process; tests must leave it as it is."""
    _kept.append(tempfile.TemporaryDirectory(prefix="mimo-store-"))
    folder = Path(_kept[-1].name) / "store"
    convert(make_plan(name, experts, group, dense), folder, jobs=2)
    return folder


def copied_store(folder: Path, *args: Any) -> Path:
    """Return a copy of a store that a test may damage."""
    return Path(shutil.copytree(made_store(*args), folder))


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Replace top-level entries of a manifest."""
    path = folder / STORE_FILE
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def flip_byte(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        value = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([value ^ 0x11]))


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file by its path in the folder."""
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def expert_names(layer: int, expert: int) -> list[str]:
    """Return the official names of an expert's matrices in the order of a record."""
    return [expert_weight_name(layer, expert, projection) for projection in PROJECTIONS]
