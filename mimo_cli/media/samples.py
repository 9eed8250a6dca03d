"""Sound samples as float32: streams of them, from integers, from several channels, and what is wrong with them.

Nothing here changes the sound beyond the mean over channels: no gain, no clipping, no filter (audio specification,
section 4). `SoundCheck` collects what a listener would want to be told.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mimo_cli.errors import MediaError

Samples = NDArray[np.float32]


class NoSoundError(MediaError):
    """There is no sound track, or it holds no sample."""


_CLIPPED_SHARE = 0.01
_FULL_SCALE = 0.999
_SILENT_POWER = 1e-10
_CANCELLED_SHARE = 1e-3
"""Power of the mean over that of the channels, below which they are taken to be in opposite phase (-30 dB)."""


@dataclass(frozen=True)
class SoundStream:
    """An encoded stream. Each `read_blocks()` decodes it from its start to blocks float32 [N, channels].

    num_frames: samples per channel where the header can be trusted, else None (then they have to be counted).
    may_be_nan: the samples are stored as floating point. Reading raises MediaError where the stream is damaged.
    """

    name: str
    rate: int
    channels: int
    num_frames: int | None
    may_be_nan: bool
    read_blocks: Callable[[], Iterator[Samples]]


def to_float(samples: NDArray[np.generic]) -> Samples:
    """Scale integers by 2^(bits-1), unsigned ones about their middle, to float32; floats are taken as they are."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = half if samples.dtype.kind == "u" else 0.0
    # A power of two: the product is exact, and rounding to float32 happens once.
    return ((samples.astype(np.float32) - np.float32(middle)) / np.float32(half)).astype(np.float32, copy=False)


def mix_down(block: Samples) -> Samples:
    """Take the arithmetic mean over the channels: float32 [N, channels] to [N]."""
    channels = block.shape[1]
    if channels == 1:
        return block[:, 0]
    # A matrix product: numpy's mean over a short last axis is ten times slower.
    return block @ np.full(channels, 1 / channels, np.float32)


def check_samples(samples: Samples, name: str, rate: int, first: int = 0) -> None:
    """Raise MediaError if a mono block holds NaN or infinity; `first` is the number of its first sample."""
    with np.errstate(invalid="ignore"):
        total = samples.sum(dtype=np.float64)  # both spread through a sum: one pass without a temporary
    if np.isfinite(total):
        return
    bad = first + int(np.argmin(np.isfinite(samples)))
    raise MediaError(
        f"{name} holds samples that are not numbers (NaN or infinite), the first at {bad / max(rate, 1):.3f} s",
        hint="write it again from its source; such samples cannot be repaired",
    )


def check_waveform(waveform: Samples, rate: int = 24_000) -> Samples:
    """Return a whole waveform as float32 [N]; raises MediaError unless it is one-dimensional, not empty and finite."""
    waveform = np.asarray(waveform)
    if waveform.ndim != 1 or waveform.size == 0 or waveform.dtype.kind not in "fiu":
        found = f"shape {list(waveform.shape)} and type {waveform.dtype}"
        raise MediaError(f"a waveform of {found} was given, mono samples [N] with N >= 1 expected")
    waveform = to_float(waveform)
    check_samples(waveform, "the waveform", rate)
    return waveform


class SoundCheck:
    """What stands out in a stream of blocks, as sentences for the user."""

    def __init__(self) -> None:
        self._values = self._clipped = 0
        self._channel_power = self._mono_power = 0.0

    def add(self, block: Samples, mono: Samples) -> None:
        """Take a block [N, channels] and its mean [N]."""
        self._values += block.size
        self._clipped += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))
        flat = block.ravel()
        self._channel_power += float(flat @ flat) / block.shape[1]
        self._mono_power += float(mono @ mono)

    def notes(self) -> tuple[str, ...]:
        """Sum up: silence, channels that cancel each other, clipping."""
        notes = []
        values = max(self._values, 1)
        if self._channel_power <= _SILENT_POWER * values:
            notes.append("it is silent")
        elif self._mono_power < _CANCELLED_SHARE * self._channel_power:
            notes.append("its channels cancel each other when mixed to mono (opposite phase); give one channel only")
        if self._clipped > _CLIPPED_SHARE * values:
            notes.append(f"{100 * self._clipped / values:.0f} % of its samples are at full scale (clipped)")
        return tuple(notes)
