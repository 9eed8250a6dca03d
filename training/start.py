"""Start: an exported model becomes the stages' checkpoints, so that training goes on where its files are all there is.

    python -m training start MODEL_FOLDER --out DIR
    python -m training run mix --out DIR

Stored weights are rounded (FP8, bfloat16) and momentum is not stored, so this is a new start from good weights. The
heads of `vision` and `audio`, which no model holds, begin anew.
"""

from pathlib import Path

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.reader import CheckpointReader
from training.export import Parts, named_weights
from training.run import State


@torch.no_grad()
def read_parts(folder: Path, parts: Parts) -> None:
    """Fill the networks with the weights of an exported folder.

    Raises CheckpointError where a tensor is missing, and RuntimeError where one has another shape.
    """
    config = ModelConfig.from_file(folder / "config.json")
    reader = CheckpointReader(TensorIndex.open(folder), config)
    for name, value in named_weights(parts):
        if name.endswith(".qkv_proj.weight"):
            is_text = name.startswith("model.layers.")
            attention = config.attention(int(name.split(".")[2])) if is_text else config.sliding_attention
            value.copy_(reader.qkv(name.removesuffix(".qkv_proj.weight"), attention, torch.float32))
        else:
            value.copy_(reader.read(name, torch.float32, shape=tuple(value.shape)))
    codec = CheckpointReader(TensorIndex.open(folder / "audio_tokenizer"))
    for name, value in parts.codec.state_dict().items():
        value.copy_(codec.read(f"encoder.{name}", torch.float32, shape=tuple(value.shape)))


def save_stages(parts: Parts, out: Path) -> None:
    """Write what the stages would have left in `out` had they made these networks."""
    trunk = {"model": parts.text.state_dict(), "audio": parts.audio.state_dict()}
    modules = torch.nn.ModuleList(parts.mtp).state_dict()
    for stage, state in {
        "vision": {"tower": parts.vision.state_dict()},
        "text": trunk,
        "mtp": {"modules": modules},
    }.items():
        _save(out / stage / "last.pt", {"step": 0, "seconds": 0.0, "state": state})
    _save(out / "vision" / "scale.pt", 1.0)
    _save(out / "audio" / "codec.pt", {"codec": parts.codec.state_dict(), "audio": parts.audio.state_dict()})
    _save(out / "audio" / "last.pt", {"step": 0, "seconds": 0.0, "state": {"codec": parts.codec.state_dict()}})


def _save(path: Path, value: State | float) -> None:
    if path.exists():
        raise SystemExit(f"{path} exists already; name an empty folder with --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
