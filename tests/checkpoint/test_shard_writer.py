"""One file is written whole or not at all, in the format's own order."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mimo_cli.checkpoint.header import read_header
from mimo_cli.checkpoint.shard_writer import PlannedTensor, ShardWriter, disk_error, shard_layout, write_json
from mimo_cli.errors import CapacityError, CheckpointError, MimoError
from tests.support.checkpoint_files import GOLDEN

TENSORS = {
    "b.scale": torch.tensor([[0.5], [2.0]]),
    "a": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
    "c": torch.ones(3, 5).to(torch.float8_e4m3fn),
    "d": torch.arange(7, dtype=torch.uint8),
    "e": torch.zeros(0, 4),
}
PLANNED = [PlannedTensor(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()]


def write_all(path: Path) -> None:
    with ShardWriter(path, PLANNED) as writer:
        for name, tensor in reversed(TENSORS.items()):
            writer.write(name, tensor)
        writer.commit()


def test_the_safetensors_library_reads_what_was_written(tmp_path: Path) -> None:
    write_all(tmp_path / "a.safetensors")
    loaded = load_file(tmp_path / "a.safetensors")
    assert set(loaded) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert loaded[name].view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist()


def test_the_bytes_are_those_the_safetensors_library_writes(tmp_path: Path) -> None:
    """F32 before BF16 before FP8 before U8, by name within a dtype; the header is padded to 8 bytes."""
    write_all(tmp_path / "ours.safetensors")
    save_file(TENSORS, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours, theirs = read_header(tmp_path / "ours.safetensors"), read_header(tmp_path / "theirs.safetensors")
    assert [(t.name, t.offset) for t in ours.tensors.values()] == [(t.name, t.offset) for t in theirs.tensors.values()]
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


@pytest.mark.parametrize("shard", ["text/model_pp0_ep2_shard0", "text/model_mtp", "text_mxfp4/model_pp0_ep0_shard0"])
def test_a_reference_shard_written_again_is_the_same_file(shard: str, tmp_path: Path) -> None:
    source = GOLDEN / f"{shard}.safetensors"
    tensors = load_file(source)
    planned = [PlannedTensor(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    with ShardWriter(tmp_path / "copy.safetensors", planned) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.commit()
    assert (tmp_path / "copy.safetensors").read_bytes() == source.read_bytes()


def test_nothing_appears_before_commit_and_nothing_remains_without(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with ShardWriter(path, PLANNED) as writer:
        writer.write("a", TENSORS["a"])
        assert not path.exists() and len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_rewrite_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_all(path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), ShardWriter(path, PLANNED) as writer:
        writer.write("d", torch.zeros(7, dtype=torch.uint8))
        raise KeyboardInterrupt
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_planned_tensor_that_was_not_written_is_named(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.safetensors", PLANNED) as writer:
        writer.write("a", TENSORS["a"])
        with pytest.raises(CheckpointError, match=r"lacks 4 tensors: `b\.scale`"):
            writer.commit()


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("a", torch.zeros(2, 3)),
        ("a", torch.zeros(3, 2, dtype=torch.bfloat16)),
        ("z", torch.zeros(1)),
        ("d", TENSORS["d"]),  # it comes twice
    ],
)
def test_a_tensor_that_is_not_as_planned_is_refused(name: str, tensor: torch.Tensor, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.safetensors", PLANNED) as writer:
        writer.write("d", TENSORS["d"])
        with pytest.raises(CheckpointError, match=f"tensor `{name}` for `a"):
            writer.write(name, tensor)


def test_tensors_that_need_a_gradient_or_are_not_contiguous_are_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.safetensors", [PlannedTensor("t", torch.float32, (3, 2))]) as writer:
        writer.write("t", torch.arange(6.0, requires_grad=True).view(2, 3).T)
        writer.commit()
    assert load_file(tmp_path / "a.safetensors")["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_folder_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(MimoError, match=r"nowhere.* cannot be written"):
        ShardWriter(tmp_path / "nowhere" / "a.safetensors", PLANNED)
    with pytest.raises(MimoError, match=r"nowhere.* cannot be written"):
        write_json(tmp_path / "nowhere" / "a.json", {})


def test_a_full_disk_is_a_matter_of_capacity() -> None:
    error = disk_error(Path("a"), OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(error, CapacityError) and error.exit_code == 4 and error.hint
    assert not isinstance(disk_error(Path("a"), OSError(errno.EACCES, "denied")), CapacityError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full on this system")
def test_a_disk_that_fills_while_writing_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ShardWriter, "__exit__", lambda *_: None)
    with ShardWriter(tmp_path / "a.safetensors", [PlannedTensor("t", torch.uint8, (1 << 20,))]) as writer:
        writer._file = open("/dev/full", "wb")  # noqa: SIM115 - the writer closes its file in commit
        with pytest.raises(CapacityError, match="no space left"):
            writer.write("t", torch.zeros(1 << 20, dtype=torch.uint8))


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"größe": 1})
    write_json(tmp_path / "a.json", {"größe": [2]})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "größe": [\n    2\n  ]\n}'
    assert len(list(tmp_path.iterdir())) == 1


def test_the_size_of_a_file_is_known_before_it_is_written(tmp_path: Path) -> None:
    planned = [PlannedTensor("b", torch.uint8, (3, 5)), PlannedTensor("a", torch.float32, (7,))]
    with ShardWriter(tmp_path / "x.safetensors", planned) as writer:
        writer.write("a", torch.ones(7))
        writer.write("b", torch.ones(3, 5, dtype=torch.uint8))
        writer.commit()
    written = (tmp_path / "x.safetensors").read_bytes()
    head, order = shard_layout(planned, 8)
    assert written.startswith(head) and len(written) == len(head) + sum(tensor.size_bytes for tensor in order)
    aligned, _ = shard_layout(planned, 4096)
    assert len(aligned) % 4096 == 0 and aligned[8:].rstrip() == head[8:].rstrip()
