"""What the engine sees of a picture, a film or a recording: sizes known at once, arrays read on demand.

`open_image`, `open_video` and `open_audio` build these. None of them holds decoded media: `chunks()` and `segments()`
decode again each time they are called, a bounded piece at a time, so an input may be encoded more than once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

PixelChunk: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""pixel_values [P, C*2*16*16] and grid_thw [n, 3] (one row per image or run of temporal steps), P = sum of t*h*w."""

MAX_CHUNK_STEPS = 4
"""Temporal steps of a film in one chunk; with the chunk that a reader still holds, at most 8 are alive at once."""


@dataclass(frozen=True, eq=False)
class ImageInput:
    """A still picture. `num_tokens` rows of the vision tower stand for it; size_px is (width, height) as displayed."""

    source: str
    size_px: tuple[int, int]
    grid_thw: tuple[int, int, int]
    num_tokens: int
    read_chunks: Callable[[], Iterator[PixelChunk]] = field(repr=False)

    def chunks(self) -> Iterator[PixelChunk]:
        """Decode the picture and yield its pixel values, in one piece."""
        return self.read_chunks()


@dataclass(frozen=True, eq=False)
class AudioInput:
    """A recording, mono at 24 kHz. `num_tokens` rows of the audio encoder stand for it.

    notes are sentences for the user about what stands out ("it is silent").
    """

    source: str
    num_samples_24k: int
    num_tokens: int
    read_segments: Callable[[], Iterator[NDArray[np.float32]]] = field(repr=False)
    notes: tuple[str, ...] = ()

    def segments(self) -> Iterator[NDArray[np.float32]]:
        """Decode the recording and yield its mel spectrogram in pieces [<= 6000, 128], in order."""
        return self.read_segments()


@dataclass(frozen=True, eq=False)
class VideoInput:
    """A film, sampled to pairs of frames (temporal steps).

    grid_thw counts steps and patches (t, h, w); timestamps_s [t] float32 is the time of each step's first frame;
    step_tokens rows of the vision tower stand for one step; segment_end_s is where the last step ends; `audio` is the
    sound track when it is wanted and there is one; notes are sentences for the user about what stands out.
    """

    source: str
    size_px: tuple[int, int]
    grid_thw: tuple[int, int, int]
    timestamps_s: NDArray[np.float32]
    segment_end_s: np.float32
    step_tokens: int
    read_chunks: Callable[[], Iterator[PixelChunk]] = field(repr=False)
    audio: AudioInput | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Rows of the vision tower, without labels, markers and sound."""
        return self.grid_thw[0] * self.step_tokens

    def chunks(self) -> Iterator[PixelChunk]:
        """Decode the film and yield pixel values of at most MAX_CHUNK_STEPS temporal steps each, in order."""
        return self.read_chunks()


MediaInput: TypeAlias = ImageInput | VideoInput | AudioInput
