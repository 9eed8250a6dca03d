"""`mimo quantize`: what is said where, what is refused, and what comes out of it, asked through `mimo chat`."""

import json
import os
import shutil
import wave
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mimo_cli.engine.sequence import Sequence
from mimo_cli.store import output
from mimo_cli.store.verify import TensorError
from tests.support.cli import Run, run_cli
from tests.support.stores import SOURCES, copied_store, file_sizes, flip_byte, made_store

TEXT, MINIATURE = str(SOURCES["text"]), str(SOURCES["miniature"])
EXAMPLES = Path(__file__).parents[2] / "examples"


def _quantize(home: Path, *argv: str, **options: Any) -> Run:
    return run_cli("quantize", *argv, home=home, **options)


def test_the_folder_is_the_answer_and_every_loss_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = _quantize(tmp_path, TEXT, str(store), "--experts", "int4", "--dense", "int8")
    assert (run.code, run.out) == (0, f"{store}\n")
    assert "mimo: lossy: experts: FP8 -> int4 g32, relative error 7." in run.err
    assert "mimo: lossy: dense: BF16, FP8 -> int8, relative error 0." in run.err
    assert "experts int4 g32" in run.err and "free" in run.err
    again = _quantize(tmp_path, TEXT, str(store), "--experts", "int4", "--dense", "int8")
    assert again.code == 0 and f"`{store}` is finished already" in again.err


def test_a_dry_run_gives_the_exact_sizes_and_writes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = _quantize(tmp_path, TEXT, str(store), "--experts", "int4", "--group", "64", "--dry-run", "--json")
    facts = json.loads(run.out)
    assert run.code == 0 and not store.exists()
    assert facts["files"] == file_sizes(made_store("text", "int4", 64))
    assert facts["total_bytes"] == facts["missing_bytes"] == sum(facts["files"].values())
    assert f"({facts['total_bytes']:,} bytes)" in run.err
    assert facts["precision"]["experts"] == "int4 g64" and facts["lossy"][0]["was"] == "FP8"
    run = _quantize(tmp_path, TEXT, str(store), "--experts", "int4", "--group", "64", "--dry-run", "-q")
    assert f"({facts['total_bytes']:,} bytes)" in run.out and run.err == ""


def test_a_pass_through_says_that_nothing_is_lost(tmp_path: Path) -> None:
    run = _quantize(tmp_path, str(SOURCES["text_mxfp4"]), str(tmp_path / "store"), "--verify", "--json")
    facts = json.loads(run.out)
    assert facts["precision"]["experts"] == "mxfp4" and facts["lossy"] == []
    assert facts["hashes"] == "verified" and facts["source_gbps"] > 0
    assert facts["verify"]["exact"] == len(facts["verify"]["tensors"])
    assert "mimo: lossy: nothing" in run.err
    report = json.loads((tmp_path / "store" / "verify.json").read_text("utf-8"))
    assert report["tensors"] == facts["verify"]["tensors"] and report["schema"] == 1


def test_recipes_are_short_for_formats(tmp_path: Path) -> None:
    for recipe, experts in (("q4", "int4 g32"), ("q8", "fp8")):
        facts = json.loads(
            _quantize(tmp_path, TEXT, str(tmp_path / "x"), "--recipe", recipe, "--dry-run", "--json").out
        )
        assert facts["precision"]["experts"] == experts and facts["precision"]["dense"] == "int8"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--group", "48"), "groups of 48 columns are not possible, 32, 64 or 128 expected"),
        (("--experts", "int3"), "int3"),
        (("--delete-source-shards",), "asks before it deletes, and there is no terminal. TRY: add --yes"),
    ],
)
def test_wrong_usage_exits_with_2(tmp_path: Path, argv: tuple[str, ...], message: str) -> None:
    run = _quantize(tmp_path, TEXT, str(tmp_path / "store"), *argv)
    assert run.code == 2 and message in run.err and run.out == ""
    assert not (tmp_path / "store").exists()


def test_a_folder_in_use_and_another_store_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    run = _quantize(tmp_path, TEXT, str(tmp_path))
    assert run.code == 2 and "exists and is not empty" in run.err
    store = str(made_store("text", "int4"))
    run = _quantize(tmp_path, TEXT, store, "--group", "64")
    assert run.code == 2 and "of another source or with other options" in run.err
    run = _quantize(tmp_path, store, str(tmp_path / "new"))
    assert run.code == 2 and "is a packed store already" in run.err


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path: Path) -> None:
    full = os.statvfs_result((4096, 4096, 1000, 100, 100, 0, 0, 0, 0, 255))
    run = _quantize(tmp_path, TEXT, str(tmp_path / "store"), store__convert__os__statvfs=lambda _: full)
    assert run.code == 4 and "MB more in" in run.err and "410 kB are free" in run.err
    assert not (tmp_path / "store").exists()


def test_a_disk_that_fills_up_ends_with_4_and_the_rest_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = tmp_path / "store", iter(range(1000))

    def write(descriptor: int, data: memoryview) -> int:
        if next(calls) > 40:
            raise OSError(28, "No space left on device")
        return os.write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(output, "write_some", write)
        run = _quantize(tmp_path, TEXT, str(store), "--experts", "int4")
    assert run.code == 4 and run.out == "" and "are still to be written" in run.err and "finished and kept" in run.err
    asked = run_cli("chat", "-m", str(store), "hello", home=tmp_path)
    assert asked.code == 3
    run = _quantize(tmp_path, TEXT, str(store), "--experts", "int4")
    assert run.code == 0 and "files of an earlier run were verified and kept" in run.err


def test_ctrl_c_ends_with_130_and_can_be_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"

    def write(descriptor: int, data: memoryview) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output, "write_some", write)
        assert _quantize(tmp_path, TEXT, str(store)).code == 130
    assert not list(store.glob(".*.part"))
    assert _quantize(tmp_path, TEXT, str(store)).code == 0


def test_the_source_is_deleted_only_if_asked_and_verified(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(SOURCES["text_mxfp4"], source)
    assert _quantize(tmp_path, str(source), str(tmp_path / "one")).code == 0
    assert len(list(source.glob("*.safetensors"))) == 2
    run = _quantize(tmp_path, str(source), str(tmp_path / "two"), "--delete-source-shards", "--yes")
    assert run.code == 0 and "deleted 2 shards" in run.err
    assert not list(source.glob("*.safetensors")) and (source / "config.json").is_file()


def test_verify_finds_a_flipped_byte_and_deletes_nothing(tmp_path: Path) -> None:
    store = copied_store(tmp_path / "store", "text", "int4")
    flip_byte(store / "experts-003.bin", 9)
    run = _quantize(tmp_path, TEXT, str(store), "--experts", "int4", "--verify", "--delete-source-shards", "--yes")
    assert run.code == 3 and "another hash than when written: `experts-003.bin`" in run.err
    assert list(SOURCES["text"].glob("*.safetensors"))


def _ask(home: Path, model: str, *argv: str, seen: list[torch.Tensor] | None = None) -> Run:
    read = Sequence.prefill

    def prefill(self: Sequence, *args: Any, **options: Any) -> torch.Tensor:
        logits = read(self, *args, **options)
        if seen is not None:
            seen.append(logits.clone())
        return logits

    changed = {"engine__sequence__Sequence__prefill": prefill}
    return run_cli("chat", "-q", "-m", model, "-t", "0", "-n", "6", "--no-think", *argv, home=home, **changed)


def test_a_passed_through_store_answers_as_the_checkpoint_does(tmp_path: Path) -> None:
    store = str(made_store("miniature", "fp8"))
    asked = ("--image", str(EXAMPLES / "cat.jpg"), "--audio", str(EXAMPLES / "speech.flac"), "What is this?")
    direct, packed = [_ask(tmp_path, model, *asked) for model in (MINIATURE, store)]
    assert direct.code == 0 and direct == packed and direct.out.strip()
    film = ("--video", str(EXAMPLES / "clip.mp4"), "And this?")
    assert _ask(tmp_path, MINIATURE, *film) == _ask(tmp_path, store, *film)
    speech = ("transcribe", "-q", str(EXAMPLES / "speech.flac"), "-m")
    direct, packed = [run_cli(*speech, model, home=tmp_path) for model in (MINIATURE, store)]
    assert direct.code == 0 and direct == packed


def test_a_changed_pixel_or_sample_changes_the_first_logits(tmp_path: Path) -> None:
    store = str(made_store("miniature", "int4", 32, "int8"))
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    samples = (np.random.default_rng(1).standard_normal(12_000) * 3000).astype("<i2")
    logits = []
    for change in ("", "pixel", "sample"):
        if change == "pixel":
            pixels[20:24, 30:34] ^= 0x80
        if change == "sample":
            samples[5000:5400] //= 4
        cv2.imwrite(str(tmp_path / "a.png"), pixels)
        with wave.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setparams((1, 2, 24_000, len(samples), "NONE", ""))
            file.writeframes(samples.tobytes())
        seen: list[torch.Tensor] = []
        run = _ask(
            tmp_path, store, "--image", str(tmp_path / "a.png"), "--audio", str(tmp_path / "a.wav"), "?", seen=seen
        )
        assert run.code == 0 and seen
        logits.append(seen[0])
    assert not torch.equal(logits[0], logits[1]) and not torch.equal(logits[1], logits[2])


def test_a_store_says_what_was_lost_and_inspect_shows_it(tmp_path: Path) -> None:
    store = str(made_store("miniature", "int4", 32, "int8"))
    run = run_cli("inspect", store, "--json", home=tmp_path)
    facts = json.loads(run.out)
    assert run.code == 0 and facts["num_problems"] == 0
    formats = {part["name"]: part["formats"] for part in facts["storage"]["parts"]}
    assert list(formats["experts"]) == ["INT4 g32"] and "INT8" in formats["text"]
    assert facts["lossy"][0].startswith("experts: FP8 -> int4 g32, relative error 5.")
    assert "lossy      experts: FP8 -> int4 g32" in run_cli("inspect", store, home=tmp_path).out
    run = run_cli("chat", "-m", store, "-t", "0", "-n", "2", "--no-think", "hello", home=tmp_path)
    assert run.code == 0 and "mimo: lossy: dense: BF16, FP8 -> int8, relative error 0." in run.err


@pytest.mark.parametrize("found", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_the_sources_ends_verification_and_keeps_the_source(found: float, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(SOURCES["text"], source)
    errors = [TensorError("good", "int4", 0.1, 0.1, True), TensorError("bad", "int4", found, found, True)]
    argv = (str(source), str(tmp_path / "store"), "--experts", "int4", "--verify", "--delete-source-shards", "--yes")
    run = _quantize(tmp_path, *argv, store__verify__compare_tensors=lambda *_: iter(errors))
    assert run.code == 3 and "1 of 2 tensors" in run.err and "`bad`" in run.err
    report = json.loads((tmp_path / "store" / "verify.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert report["worst"] == {**asdict(errors[1]), "relative_error": None, "max_error": None}
    assert list(source.glob("*.safetensors"))
