"""Loaded engines for tests: the reference text checkpoints and the random miniature, each loaded once per process."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.engine.sequence import Sequence
from mimo_cli.media.prompt import Prompt, Span
from mimo_cli.media.types import AudioInput, ImageInput, PixelChunk, VideoInput
from tests.reference.sets import reference_sets
from tests.support.miniature import random_miniature

GOLDEN = reference_sets()
MINIATURE = random_miniature()


@cache
def golden_engine(name: str = "text") -> Engine:
    """Load a reference checkpoint in float32; tests must leave its weights as they are."""
    return load_engine(GOLDEN / name, dtype="float32")


@cache
def golden_arrays(name: str = "text") -> dict[str, np.ndarray]:
    """The reference values of a set."""
    with np.load(GOLDEN / name / "expected.npz") as arrays:
        return dict(arrays)


def golden_ids(number: int = 1, name: str = "text") -> tuple[int, ...]:
    """Return reference sequence `number`: 17, 131 or 400 tokens of the text set."""
    return tuple(golden_arrays(name)[f"seq{number}_input_ids"].tolist())


@cache
def miniature_engine() -> Engine:
    """Load the random miniature, which has both towers, in float32."""
    return load_engine(MINIATURE, dtype="float32")


def copy_checkpoint(source: Path, folder: Path) -> Path:
    """Copy a checkpoint to a folder that may be damaged."""
    return Path(shutil.copytree(source, folder, ignore=shutil.ignore_patterns("expected.npz")))


def load_changed(folder: Path, **options: Any) -> Engine:
    """Load a folder in float32 with options."""
    return load_engine(folder, dtype="float32", options=LoadOptions(**options))


class CountingSource:
    """A picture of given pixel values that counts how often it is decoded."""

    def __init__(self, pixel_values: np.ndarray, grid: tuple[int, int, int]) -> None:
        self.pixel_values = pixel_values
        self.grid = grid
        self.decoded = 0

    def __call__(self) -> Any:
        self.decoded += 1
        yield self._chunk()

    def _chunk(self) -> PixelChunk:
        return self.pixel_values, np.array([self.grid], np.int64)


def picture(seed: int = 0, grid: tuple[int, int, int] = (1, 4, 6), source: str = "noise.png") -> ImageInput:
    """Return a picture of random pixel values; `read_chunks.decoded` counts how often it was read."""
    t, h, w = grid
    values = np.random.default_rng(seed).standard_normal((t * h * w, 1536)).astype(np.float32)
    return ImageInput(source, (w * 16, h * 16), grid, t * h * w // 4, CountingSource(values, grid))


def recording(seed: int = 0, rows: tuple[int, ...] = (100,), source: str = "noise.wav") -> AudioInput:
    """Return a recording of random mel segments with these numbers of rows."""
    generator = np.random.default_rng(seed)
    segments = [generator.standard_normal((n, 128)).astype(np.float32) for n in rows]
    codes = sum(-(-n // 4) for n in rows)
    return AudioInput(source, sum(rows) * 240, -(-codes // 4), lambda: iter(segments))


def film(seed: int = 0, steps: int = 3, audio: AudioInput | None = None) -> VideoInput:
    """Return a film of random pixel values, read one temporal step at a time."""
    generator = np.random.default_rng(seed)
    chunks = [generator.standard_normal((24, 1536)).astype(np.float32) for _ in range(steps)]
    grids = np.array([[1, 4, 6]], np.int64)
    times = np.arange(steps, dtype=np.float32)
    return VideoInput(
        "noise.mp4", (96, 64), (steps, 4, 6), times, np.float32(steps), 6, lambda: ((c, grids) for c in chunks), audio
    )


def media_prompt(*pieces: Any, pad: int = 5) -> Prompt:
    """Put a prompt together from lists of ids, pictures and recordings; placeholders all have the id `pad`."""
    ids: list[int] = []
    spans: list[Span] = []
    items: list[Any] = []
    for piece in pieces:
        if isinstance(piece, (list, tuple)):
            ids += piece
            continue
        stream = "audio" if isinstance(piece, AudioInput) else "vision"
        spans.append(Span(len(ids), piece.num_tokens, len(items), stream))
        ids += [pad] * piece.num_tokens
        items.append(piece)
    return Prompt(tuple(ids), tuple(spans), tuple(items))


def last_logits(engine: Engine, prompt: Prompt, chunk_tokens: int | None = None) -> torch.Tensor:
    """Read a prompt on a new timeline; returns the logits [V] behind it."""
    return engine.start_sequence(max(len(prompt), 1)).prefill(prompt, chunk_tokens)


def fresh(engine: Engine, max_tokens: int = 512) -> Sequence:
    """Return an empty timeline."""
    return engine.start_sequence(max_tokens)
