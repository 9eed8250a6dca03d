"""Checksums of records: written with the store, the same after a resumed conversion, and missing in older stores."""

import json
import zlib
from pathlib import Path

import pytest

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.errors import CheckpointError
from mimo_cli.store import convert as convert_module
from mimo_cli.store.checksums import CHECKSUM_FILE, StoredChecksums, layer_checksums
from mimo_cli.store.convert import convert
from mimo_cli.store.manifest import JOURNAL_FILE, STORE_FILE, RecordLayout, StoreManifest, layer_file
from mimo_cli.store.opened import open_model
from mimo_cli.store.records import StoreRecords
from tests.support.stores import copied_store, edit_manifest, made_store, make_plan


def records_of(folder: Path) -> StoreRecords:
    records = open_model(folder, ModelConfig.from_file(folder / "config.json")).records()
    assert records is not None
    return records


def layout_of(folder: Path) -> RecordLayout:
    layout = StoreManifest.from_folder(folder).records
    assert layout is not None
    return layout


def test_a_store_knows_the_checksum_of_every_record() -> None:
    folder = made_store("text", "int4")
    records, layout = records_of(folder), layout_of(folder)
    for layer in layout.layers:
        data = (folder / layer_file(layer)).read_bytes()
        for expert in range(layout.experts):
            record = data[expert * layout.record_bytes :][: layout.record_bytes]
            assert records.checksum(layer, expert) == zlib.crc32(record)


def test_the_file_is_part_of_the_store_and_of_its_planned_size() -> None:
    folder = made_store("text", "int4")
    entry = StoreManifest.from_folder(folder).files[CHECKSUM_FILE]
    assert entry.size_bytes == (folder / CHECKSUM_FILE).stat().st_size == make_plan("text", "int4").sizes[CHECKSUM_FILE]


def test_a_store_made_before_there_were_checksums_is_read_as_ever(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text", "int4")
    files = json.loads((folder / STORE_FILE).read_text("utf-8"))["files"]
    del files[CHECKSUM_FILE]
    edit_manifest(folder, files=files)
    (folder / CHECKSUM_FILE).unlink()
    records = records_of(folder)
    assert records.checksum(layout_of(folder).layers[0], 0) is None


def test_a_resumed_conversion_has_the_same_checksums_also_from_an_older_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plan = tmp_path / "store", make_plan("text", "int4")
    with monkeypatch.context() as patch:
        patch.setattr(convert_module, "encode_checksums", lambda rows: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(plan, folder, jobs=2)
    journal = folder / JOURNAL_FILE
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    assert any(line.get("crc32") for line in lines)
    lines[-1].pop("crc32")  # an earlier version wrote none
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert convert(plan, folder, jobs=2).kept
    assert (folder / CHECKSUM_FILE).read_bytes() == (made_store("text", "int4") / CHECKSUM_FILE).read_bytes()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text", "int4")
    layout = layout_of(folder)
    layer = layout.layers[0]
    (folder / CHECKSUM_FILE).write_bytes(b"123")
    with pytest.raises(CheckpointError, match=rf"{CHECKSUM_FILE}` has 3 bytes"):
        StoredChecksums(folder, layout).of(layer, 0)
    (folder / CHECKSUM_FILE).unlink()
    with pytest.raises(CheckpointError, match=rf"{CHECKSUM_FILE}` cannot be read"):
        StoredChecksums(folder, layout).of(layer, 0)
    with (folder / layer_file(layer)).open("r+b") as file:
        file.truncate(layout.record_bytes)
    with pytest.raises(CheckpointError, match="truncated"):
        layer_checksums(folder, layout, layer)
