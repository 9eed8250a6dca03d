"""The generated sets: the same bytes everywhere, the layout of the release, and one copy for all processes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.reference import random_text, random_vision, sets
from tests.reference.sets import FILES, reference_sets
from tests.reference.storage import read_folder

SETS = reference_sets()
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "tensors", "digest"),
    [("text", 685, "09f722c0fb8a031a"), ("vision", 132, "3478a7cadcf2b5e1")],
)
def test_a_seed_fixes_every_byte_of_the_weights(name: str, tensors: int, digest: str) -> None:
    stored = read_folder(SETS / name)
    found = hashlib.sha256()
    for key in sorted(stored):
        found.update(f"{key} {stored[key].dtype} {stored[key].shape}".encode() + stored[key].data)
    assert (len(stored), found.hexdigest()[:16]) == (tensors, digest)


def test_another_seed_gives_other_weights_and_values(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((SETS / "vision" / "config.json").read_bytes())
    random_vision.write_checkpoint(tmp_path, random_vision.SEED + 1)
    with np.load(SETS / "vision" / "expected.npz") as arrays:
        expected = dict(arrays)
    with np.load(SETS / "vision" / "inputs.npz") as arrays:
        changed = random_vision.values(tmp_path, dict(arrays))
    assert set(changed) == set(expected)
    assert np.abs(changed["img2_embeds"] - expected["img2_embeds"]).max() > 1


def test_global_chunks_end_within_a_block_and_sliding_ones_with_one() -> None:
    stored = read_folder(SETS / "text")
    shapes = {layer: stored[f"model.layers.{layer}.self_attn.qkv_proj.weight"].shape for layer in (0, 1)}
    scales = {layer: stored[f"model.layers.{layer}.self_attn.qkv_proj.weight_scale_inv"].shape for layer in (0, 1)}
    assert (shapes, scales) == ({0: (2176, 128), 1: (2816, 128)}, {0: (18, 1), 1: (22, 1)})


def test_blocks_differ_in_magnitude_and_use_the_whole_range_of_their_format() -> None:
    stored = read_folder(SETS / "text")
    scales = stored["model.layers.0.self_attn.qkv_proj.weight_scale_inv"].numbers()
    assert scales.max() / scales.min() > 3
    sizes = np.abs(stored["model.layers.0.self_attn.qkv_proj.weight"].numbers())
    assert sizes[:128].max() == sizes[1088 : 1088 + 128].max() == 448


def test_experts_are_spread_over_ranks_and_shards() -> None:
    weight_map = json.loads((SETS / "text" / "model.safetensors.index.json").read_text())["weight_map"]
    assert weight_map["model.layers.4.mlp.experts.11.up_proj.weight"] == "model_pp0_ep2_shard0.safetensors"
    assert weight_map["model.layers.5.mlp.experts.4.up_proj.weight_scale_inv"] == "model_pp0_ep1_shard1.safetensors"
    assert weight_map["lm_head.weight"] == weight_map["model.layers.1.mlp.gate.weight"]
    assert len(set(weight_map.values())) == 2 * random_text.RANKS + 1


def test_the_inputs_are_handed_on_as_they_came() -> None:
    with np.load(FILES / "vision" / "inputs.npz") as given, np.load(SETS / "vision" / "expected.npz") as expected:
        assert all(np.array_equal(expected[name], given[name]) for name in given)
        assert len(set(expected) - set(given)) == 17


def test_processes_that_ask_at_once_share_one_folder(tmp_path: Path) -> None:
    """Each prints the folder; afterwards there is it and its lock, and nothing left over."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tests.reference import sets\n"
        "sets.make_text = sets.make_vision = lambda folder: (folder / 'expected.npz').touch(exist_ok=False)\n"
        "print(sets.reference_sets())"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    environment = {"TMPDIR": str(tmp_path), "PATH": "", "USER": "someone", "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=ROOT, text=True) for _ in range(3)]
    printed = {run.communicate(timeout=120)[0].strip() for run in runs}
    (folder,) = printed
    assert {path.name for path in tmp_path.iterdir()} == {Path(folder).name, f"{Path(folder).name}.lock"}


def test_an_interrupted_making_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sets.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(sets, "make_text", interrupt)
    reference_sets.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        reference_sets()
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
