"""Conversion: what is kept bit for bit, what a store holds, and going on after kill -9, a full disk and damage."""

import errno
import fcntl
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import expert_weights
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CapacityError, CheckpointError, UsageError
from mimo_cli.quant.packed import decode_packed
from mimo_cli.store import output
from mimo_cli.store.convert import convert, finished_manifest, missing_bytes
from mimo_cli.store.manifest import JOURNAL_FILE, STORE_FILE, StoreManifest, layer_file
from mimo_cli.store.plan import QuantizeOptions, StorePlan, plan_store
from mimo_cli.store.verify import TensorError, compare_tensors, verify_hashes
from tests.support.source_tree import ROOT
from tests.support.stores import (
    SOURCES,
    copied_store,
    expert_names,
    file_sizes,
    flip_byte,
    made_store,
    make_plan,
)


def _decoded_expert(folder: Path, layer: int, expert: int) -> list[np.ndarray]:
    layout = StoreManifest.from_folder(folder).records
    assert layout is not None
    data = np.fromfile(folder / layer_file(layer), np.uint8).reshape(layout.experts, layout.record_bytes)[expert]
    up, end = layout.up_shape.nbytes, layout.up_shape.nbytes + layout.down_shape.nbytes
    assert not data[end:].any()
    return [*decode_packed(data[:up], layout.up_shape), *decode_packed(data[up:end], layout.down_shape)]


def _reader(name: str) -> CheckpointReader:
    return CheckpointReader(TensorIndex.open(SOURCES[name]), ModelConfig.from_file(SOURCES[name] / "config.json"))


@pytest.mark.parametrize(("name", "experts"), [("text", "fp8"), ("text_mxfp4", "mxfp4"), ("miniature", "fp8")])
def test_released_experts_pass_through_bit_for_bit(name: str, experts: str) -> None:
    folder, reader = made_store(name, experts), _reader(name)
    config = ModelConfig.from_file(SOURCES[name] / "config.json")
    for layer in config.moe_layers:
        for expert in range(config.n_routed_experts):
            decoded = _decoded_expert(folder, layer, expert)
            for tensor, values in zip(expert_names(layer, expert), decoded, strict=True):
                expected = reader.read(tensor, torch.float32).numpy()
                assert np.array_equal(expected.view(np.uint32), values.view(np.uint32))
    assert not StoreManifest.from_folder(folder).lossy


def test_everything_else_is_the_same_bytes_under_the_same_names() -> None:
    folder, source = made_store("miniature", "int4"), _reader("miniature")
    stored = CheckpointReader(TensorIndex.open(folder))
    experts = {weight.name for weight in expert_weights(ModelConfig.from_file(folder / "config.json"))}
    kept = [name for name in source.index if name.removesuffix("_scale_inv") not in experts]
    assert kept == stored.index.names() and len(kept) > 200
    for name in kept:
        assert torch.equal(source.raw(name).view(torch.uint8), stored.raw(name).view(torch.uint8)), name
    for copied in ("config.json", "tokenizer.json", "generation_config.json", "audio_tokenizer/model.safetensors"):
        assert (folder / copied).read_bytes() == (SOURCES["miniature"] / copied).read_bytes()


@pytest.mark.parametrize("group", [32, 64, 128])
def test_int4_loses_what_the_manifest_says(group: int) -> None:
    folder, plan = made_store("text", "int4", group), make_plan("text", "int4", group)
    manifest = StoreManifest.from_folder(folder)
    names = {weight.name for weight in expert_weights(plan.config)}
    errors = [e for e in compare_tensors(plan, folder, manifest) if e.tensor in names]
    assert len(errors) == len(names) and all(0.04 < e.relative_error < 0.12 for e in errors)
    stated = float(manifest.lossy[0].relative_error)
    assert stated == pytest.approx(float(np.mean([e.relative_error for e in errors])), rel=0.1)


@pytest.mark.parametrize("dense", ["int8", "int4"])
def test_dense_matrices_are_packed_and_the_rest_stays(dense: str) -> None:
    folder, plan = made_store("text", "fp8", 32, dense), make_plan("text", "fp8", 32, dense)
    manifest = StoreManifest.from_folder(folder)
    packed = set(manifest.packed)
    assert "lm_head.weight" in packed and "model.mtp.layers.2.eh_proj.weight" in packed
    assert "model.layers.0.self_attn.qkv_proj.weight" in packed and "model.layers.0.mlp.down_proj.weight" in packed
    assert not any("embed" in name or "norm" in name or ".mlp.gate.weight" in name or "sink" in name for name in packed)
    bound = 0.011 if dense == "int8" else 0.12  # 1/254 and 1/15 of the largest of a group, over its deviation
    for error in compare_tensors(plan, folder, manifest):
        assert error.relative_error < (bound if error.tensor in packed else 1e-12), error
    assert manifest.lossy[0].part == "dense"


@pytest.mark.parametrize("arguments", [("text", "int4", 64, "int8"), ("miniature", "auto", 32, "keep")])
def test_what_is_written_has_exactly_the_planned_size(arguments: tuple[str, str, int, str]) -> None:
    plan = make_plan(*arguments)
    assert file_sizes(made_store(*arguments)) == plan.sizes
    assert plan.total_bytes == sum(plan.sizes.values())


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    convert(make_plan("text_mxfp4", "int4"), tmp_path / "one", jobs=1)
    convert(make_plan("text_mxfp4", "int4"), tmp_path / "two", jobs=3)
    for name in file_sizes(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_progress_ends_at_the_planned_total_without_the_shard_headers(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    plan = make_plan("text_mxfp4")
    convert(plan, tmp_path / "store", on_progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {plan.total_bytes}
    assert plan.total_bytes - 100_000 < seen[-1][0] <= plan.total_bytes


KILLED = """
import os, sys, time
from pathlib import Path
from mimo_cli.store import output
from mimo_cli.store.convert import convert
from mimo_cli.store.plan import QuantizeOptions, StorePlan, plan_store
write = output.write_some
def slow(descriptor, data):
    print("wrote", flush=True)
    time.sleep(0.01)
    return write(descriptor, data[:20000] if "experts" in os.readlink(f"/proc/self/fd/{descriptor}") else data)
output.write_some = slow
convert(plan_store(Path(sys.argv[1]), QuantizeOptions("int4", 32)), Path(sys.argv[2]), jobs=1)
"""


def test_a_conversion_goes_on_after_kill_9_at_random_moments(tmp_path: Path) -> None:
    source, folder = SOURCES["text"], tmp_path / "store"
    generator = random.Random(3)
    for _ in range(4):
        command = [sys.executable, "-c", KILLED, str(source), str(folder)]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        for _ in range(generator.randint(10, 25)):
            run.stdout.readline()
        time.sleep(generator.random() / 20)
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        assert run.returncode == -signal.SIGKILL and not (folder / STORE_FILE).exists()
    assert (folder / JOURNAL_FILE).is_file()
    kept = len(list(folder.glob("experts-*.bin")))
    report = convert(make_plan("text", "int4"), folder)
    assert len(report.kept) >= kept >= 1 and not report.damaged
    _expect_same(folder, made_store("text", "int4"))
    assert not (folder / JOURNAL_FILE).exists() and not list(folder.glob(".*.part"))


def _expect_same(folder: Path, expected: Path) -> None:
    assert file_sizes(folder) == file_sizes(expected)
    for name in file_sizes(expected):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name


def _fill_disk_after(monkeypatch: pytest.MonkeyPatch, plan: StorePlan, size_bytes: int) -> None:
    """Let the dense files and so many bytes of experts be written."""
    left = [size_bytes + sum(plan.sizes[name] for name in plan.dense)]

    def write(descriptor: int, data: memoryview) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = os.write(descriptor, data[: left[0]])
        left[0] -= count
        return count

    monkeypatch.setattr(output, "write_some", write)


def test_a_full_disk_is_told_with_numbers_and_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plan = tmp_path / "store", make_plan("text", "int4")
    assert plan.records is not None
    with monkeypatch.context() as patch:
        _fill_disk_after(patch, plan, 2 * plan.records.file_bytes + 1000)
        with pytest.raises(CapacityError, match=r"MB of .* are still to be written, .* free .* 4 files are finished"):
            convert(plan, folder)
    assert len(list(folder.glob("experts-*.bin"))) == 2 and not list(folder.glob(".*.part"))
    report = convert(plan, folder)
    assert sorted(report.kept) == ["experts-001.bin", "experts-002.bin", "mtp.safetensors", "text.safetensors"]
    _expect_same(folder, made_store("text", "int4"))


def test_a_finished_file_that_changed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, plan = tmp_path / "store", make_plan("text", "int4")
    with monkeypatch.context() as patch:
        _fill_disk_after(patch, plan, 2 * plan.records.file_bytes)  # type: ignore[union-attr]
        with pytest.raises(CapacityError):
            convert(plan, folder)
    flip_byte(folder / "experts-002.bin", 5000)
    report = convert(plan, folder)
    assert report.damaged == ["experts-002.bin"] and "experts-001.bin" in report.kept
    _expect_same(folder, made_store("text", "int4"))


def test_an_interrupt_removes_the_file_in_work_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    calls = iter(range(30))

    def write(descriptor: int, data: memoryview) -> int:
        if next(calls) == 20:
            raise KeyboardInterrupt
        return os.write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(output, "write_some", write)
        with pytest.raises(KeyboardInterrupt):
            convert(make_plan("text", "int4"), folder)
    assert not list(folder.glob(".*.part")) and (folder / "experts-001.bin").is_file()
    convert(make_plan("text", "int4"), folder)
    _expect_same(folder, made_store("text", "int4"))


def test_an_unfinished_store_does_not_go_on_with_other_options(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(made_store("text", "int4") / "config.json", folder)
    (folder / JOURNAL_FILE).write_text('{"source": {}, "precision": {}}\n', "utf-8")
    with pytest.raises(UsageError, match="unfinished conversion of another source or with other options"):
        convert(make_plan("text", "int4"), folder)


def test_a_finished_store_is_known_by_source_and_options() -> None:
    folder = made_store("text", "int4")
    assert finished_manifest(make_plan("text", "int4"), folder) is not None
    with pytest.raises(UsageError, match="of another source or with other options"):
        finished_manifest(make_plan("text", "int4", 64), folder)
    with pytest.raises(UsageError, match="of another source or with other options"):
        finished_manifest(make_plan("text_mxfp4", "int4"), folder)


def test_a_folder_in_use_or_inside_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="exists and is not empty"):
        finished_manifest(make_plan(), tmp_path)
    with pytest.raises(UsageError, match="lies in the source"):
        convert(make_plan(), SOURCES["text"] / "store")


def test_a_damaged_expert_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(SOURCES["text"], source)
    name = expert_names(3, 5)[1]
    info = TensorIndex.open(source)[name]
    with info.shard.open("r+b") as file:
        file.seek(info.offset + 77)
        file.write(b"\x7f")  # NaN in e4m3
    for experts in ("int4", "fp8"):
        plan = plan_store(source, QuantizeOptions(experts))  # type: ignore[arg-type]
        with pytest.raises(CheckpointError, match=rf"tensor `{name}` in `{info.shard.name}`.*(NaN|not finite)"):
            convert(plan, tmp_path / experts)


def test_a_flipped_byte_is_found_by_its_hash_and_by_comparison(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text", "fp8")
    manifest, plan = StoreManifest.from_folder(folder), make_plan("text", "fp8")
    verify_hashes(folder, manifest)
    assert all(error.relative_error == 0 for error in compare_tensors(plan, folder, manifest))
    flip_byte(folder / "experts-004.bin", 100)
    with pytest.raises(
        CheckpointError, match=r"1 of \d+ files .* have another hash than when written: `experts-004.bin`"
    ):
        verify_hashes(folder, manifest)
    wrong = [error.tensor for error in compare_tensors(plan, folder, manifest) if error.relative_error > 0]
    assert wrong == ["model.layers.4.mlp.experts.0.gate_proj.weight"]


def test_missing_bytes_count_what_is_not_there_yet(tmp_path: Path) -> None:
    plan = make_plan("text", "int4")
    needed_bytes, free_bytes = missing_bytes(plan, tmp_path / "deep" / "store")
    assert needed_bytes == plan.total_bytes and free_bytes > 0
    assert missing_bytes(plan, made_store("text", "int4"))[0] == 0


def _with_other_weights(folder: Path) -> Path:
    """Copy the source, a weight of every shard changed, headers and sizes as they were."""
    shutil.copytree(SOURCES["text"], folder)
    for shard in TensorIndex.open(folder).shard_bytes:
        flip_byte(shard, shard.stat().st_size - 10)
    return folder


def test_other_weights_under_the_same_headers_are_another_source(tmp_path: Path) -> None:
    source = tmp_path / SOURCES["text"].name
    other = plan_store(_with_other_weights(source), QuantizeOptions("int4"))
    assert make_plan("text", "int4").conversion != other.conversion
    with pytest.raises(UsageError, match="of another source or with other options"):
        finished_manifest(other, made_store("text", "int4"))
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / JOURNAL_FILE).write_text(json.dumps(make_plan("text", "int4").conversion) + "\n", "utf-8")
    with pytest.raises(UsageError, match="unfinished conversion of another source"):
        convert(other, folder)


def test_two_conversions_do_not_write_into_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another `mimo quantize` writes into"):
        convert(make_plan("text", "int4"), folder)
    os.close(other)
    convert(make_plan("text", "int4"), folder)
    assert finished_manifest(make_plan("text", "int4"), folder) is not None


@pytest.mark.parametrize(
    ("relative_error", "is_lossy", "is_wrong"),
    [
        (0.0, False, False),
        (0.1, True, False),
        (1e-9, False, True),
        (math.inf, True, True),
        (math.nan, True, True),
    ],
)
def test_a_tensor_is_wrong_without_numbers_or_where_nothing_may_change(
    relative_error: float, is_lossy: bool, is_wrong: bool
) -> None:
    assert TensorError("w", "int4", relative_error, relative_error, is_lossy).is_wrong is is_wrong
