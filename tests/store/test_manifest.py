"""The manifest: what is read is what was written, and every kind of damage is named."""

import json
import os
from pathlib import Path

import pytest

from mimo_cli.errors import CheckpointError
from mimo_cli.store.manifest import (
    JOURNAL_FILE,
    STORE_FILE,
    RecordLayout,
    StoreManifest,
    check_files,
    is_store,
)
from tests.support.stores import copied_store, edit_manifest, made_store, make_plan


def test_what_is_read_is_what_was_planned() -> None:
    plan, manifest = (
        make_plan("text", "int4", 64, "int8"),
        StoreManifest.from_folder(made_store("text", "int4", 64, "int8")),
    )
    assert manifest.records == plan.records and manifest.packed == plan.packed
    assert dict(manifest.source) == plan.identity and manifest.precision["experts"] == "int4 g64"
    assert StoreManifest.from_folder(made_store("text", "int4", 64, "int8")) == manifest


def test_records_are_aligned_and_hold_both_streams() -> None:
    layout = RecordLayout("int4", 32, 4096, 2048, 256, tuple(range(1, 48)))
    assert layout.record_bytes % 4096 == 0
    assert layout.up_shape.nbytes + layout.down_shape.nbytes == layout.record_bytes == 14_155_776  # 4.5 bits per weight
    assert layout.file_bytes == 256 * layout.record_bytes and layout.bits_per_weight == 4.5
    odd = RecordLayout("fp8", 128, 96, 40, 3, (1,))
    assert odd.record_bytes % 4096 == 0 and odd.record_bytes > odd.up_shape.nbytes + odd.down_shape.nbytes


def test_a_newer_version_is_refused_by_number(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    edit_manifest(folder, version=2)
    with pytest.raises(CheckpointError, match="is of version 2, this program knows versions up to 1") as caught:
        StoreManifest.from_folder(folder)
    assert caught.value.hint and "update mimo" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not the manifest"),
        ({"version": "1"}, "not the manifest"),
        ({"files": None}, "is damaged"),
        ({"files": {"../../etc/passwd": {"size_bytes": 1, "sha256": ""}}}, "is damaged.*file name"),
        ({"files": {"a.bin": {"size_bytes": 1}}}, "is damaged.*sha256"),
        ({"lossy": [{"what": "x"}]}, "is damaged"),
        ({"packed": {"lm_head.weight": {"format": "int3", "group": 32, "rows": 4, "cols": 4}}}, "int3"),
        ({"packed": {"lm_head.weight": {"format": "int4", "group": 7, "rows": 4, "cols": 4}}}, "groups of 7"),
        ({"packed": {"lm_head.weight": {"format": "int4", "group": 32, "rows": 0, "cols": 4}}}, "rows"),
    ],
)
def test_a_damaged_manifest_is_an_error_of_the_files(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    edit_manifest(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        StoreManifest.from_folder(folder)


def test_sizes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    records = json.loads((folder / STORE_FILE).read_text("utf-8"))["experts"]
    edit_manifest(folder, experts=records | {"record_bytes": records["record_bytes"] + 4096})
    with pytest.raises(CheckpointError, match=r"records of \d+ bytes expected, \d+ found"):
        StoreManifest.from_folder(folder)


def test_a_cut_long_or_missing_file_is_named_with_both_sizes(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    manifest, path = StoreManifest.from_folder(folder), folder / "experts-001.bin"
    check_files(folder, manifest)
    size_bytes = path.stat().st_size
    os.truncate(path, size_bytes - 4096)
    with pytest.raises(CheckpointError, match=rf"experts-001.bin` is truncated: .*{size_bytes:,} bytes\) expected"):
        check_files(folder, manifest)
    os.truncate(path, size_bytes + 1)
    with pytest.raises(CheckpointError, match="is too long"):
        check_files(folder, manifest)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"experts-001.bin` is missing"):
        check_files(folder, manifest)


def test_a_store_that_is_not_finished_says_how_to_go_on(tmp_path: Path) -> None:
    assert not is_store(tmp_path)
    (tmp_path / JOURNAL_FILE).touch()
    with pytest.raises(CheckpointError, match="is a packed store that is not finished") as caught:
        is_store(tmp_path)
    assert caught.value.hint and "mimo quantize SRC" in caught.value.hint
    assert is_store(made_store("text_mxfp4"))
