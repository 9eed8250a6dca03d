"""Long recordings to clips for transcription: cut at quiet places, stretches of silence left out, times kept.

One pass over minutes of speech makes the model lose words; clips of up to a minute do not (audio specification,
section 11). Cuts are put into the quietest 200 ms of the second half of each span, so that they rarely split a word.
A clip's samples (96 kB a second) and the next span are all that is held.

Powers are taken over hops of 10 ms; `_smooth` is their mean over 200 ms.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mimo_cli.errors import MediaError, UsageError
from mimo_cli.media.audio import AudioOptions, Recording, input_from_samples
from mimo_cli.media.samples import Samples
from mimo_cli.media.types import AudioInput

MAX_CLIP_S = 60.0
MIN_CLIP_S = 1.0

_HOPS_PER_S = 100
_WINDOW_HOPS = 20
_MIN_SILENCE_HOPS = 200
_MARGIN_HOPS = 30
"""Silence kept around what is not silent: soft beginnings and endings of words lie below any threshold."""

_SILENCE_POWER = 1e-7
_SILENCE_SHARE = 1e-4
"""Silence is below -70 dBFS, or 40 dB below the recording's loudest second: rather keep noise than lose a word."""

_LOUD_WINDOWS = 5

Powers = NDArray[np.float64]


@dataclass(frozen=True)
class SplitOptions:
    """How to cut. Times in seconds; `overlap_s` is heard again at the start of a clip that follows without a gap.

    skip_silence leaves out stretches of at least 2 s in which nothing is heard (by energy alone: noise stays).
    """

    chunk_s: float = 30.0
    overlap_s: float = 0.0
    skip_silence: bool = True
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        if not 2 * MIN_CLIP_S <= self.chunk_s <= MAX_CLIP_S:
            raise UsageError(f"clips must be {2 * MIN_CLIP_S:g} to {MAX_CLIP_S:g} s long, found {self.chunk_s:g} s")
        if not 0 <= self.overlap_s <= min(self.chunk_s / 2, MAX_CLIP_S - self.chunk_s):
            raise UsageError(
                f"clips of {self.chunk_s:g} s cannot overlap by {self.overlap_s:g} s",
                hint=f"at most half a clip, and {MAX_CLIP_S:g} s with it",
            )
        if not 0 <= self.start_s < (math.inf if self.end_s is None else self.end_s):
            raise UsageError(f"nothing lies between {self.start_s:g} s and {self.end_s} s: the start must come first")


@dataclass(frozen=True, eq=False)
class AudioClip:
    """A part of a recording; times in seconds from the recording's start. `audio` may begin `overlap_s` earlier."""

    start_s: float
    end_s: float
    audio: AudioInput


def split_recording(recording: Recording, options: SplitOptions | None = None) -> Iterator[AudioClip]:
    """Yield the clips of a recording in order, none longer than `chunk_s` (+ `overlap_s`) or shorter than a second,
    unless that is all there is. Silence alone yields nothing.

    Raises MediaError where decoding fails or `start_s` lies behind the end.
    """
    options = options or SplitOptions()
    if options.start_s >= recording.duration_s:
        raise MediaError(f"{recording.stream.name} ends at {recording.duration_s:.2f} s, before {options.start_s:g} s")
    span = _Span(recording.options, recording.stream.name, options)
    for block in _between(recording, options):
        while len(block):
            # Not a sample more than a decision needs: cuts must not depend on the size of blocks.
            block = span.fill(block)
            if span.is_full:
                yield from span.take(is_last=False)
    span.flush()
    while len(span.powers):
        yield from span.take(is_last=True)


def _between(recording: Recording, options: SplitOptions) -> Iterator[Samples]:
    """Yield the samples from `start_s` to `end_s`, and none after it is reached."""
    rate = recording.options.mel.sampling_rate
    start = round(options.start_s * rate)
    end = recording.num_samples if options.end_s is None else round(options.end_s * rate)
    done = 0
    for block in recording.samples():
        part = block[max(0, start - done) : max(0, end - done)]
        done += len(block)
        if len(part):
            yield part
        if done >= end and end < recording.num_samples:
            return


@dataclass
class _Span:
    """What was read and not yet given out: whole hops of samples with their powers, and the rest of a hop."""

    audio_options: AudioOptions
    name: str
    options: SplitOptions
    powers: Powers = field(default_factory=lambda: np.zeros(0))
    samples: Samples = field(default_factory=lambda: np.zeros(0, np.float32))
    measured: int = 0  # of `powers`, those whose windows are in `loudest`
    loudest: Powers = field(default_factory=lambda: np.zeros(0))  # of all windows so far
    overlap: Samples = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        self.rate = self.audio_options.mel.sampling_rate
        self.hop = self.rate // _HOPS_PER_S
        self.chunk_hops = int(self.options.chunk_s * _HOPS_PER_S)
        self.min_hops = int(MIN_CLIP_S * _HOPS_PER_S)
        self.position = round(self.options.start_s * self.rate)  # of samples[0] in the recording

    @property
    def is_full(self) -> bool:
        """Tell whether a clip can be cut such that one of at least a second remains."""
        return len(self.powers) >= self.chunk_hops + self.min_hops

    def fill(self, block: Samples) -> Samples:
        """Append samples until it is full, with powers for each whole hop, and return the rest of the block."""
        room = (self.chunk_hops + self.min_hops) * self.hop - len(self.samples)
        self.samples = np.concatenate([self.samples, block[:room]])
        first, last = len(self.powers), len(self.samples) // self.hop
        self._add_powers(self.samples[first * self.hop : last * self.hop].reshape(-1, self.hop))
        return block[room:]

    def flush(self) -> None:
        """End the stream: the rest of a hop becomes a hop."""
        rest = self.samples[len(self.powers) * self.hop :]
        if len(rest):
            self._add_powers(rest[None])

    def take(self, *, is_last: bool) -> Iterator[AudioClip]:
        """Remove the first clip, or the silence before it, and yield the clip if it is one."""
        self._measure()
        quiet = self._quiet()
        voiced = np.flatnonzero(~quiet)
        if not len(voiced):
            # All but a margin, which may be the soft beginning of what comes next.
            self._drop(len(self.powers) - (0 if is_last else _MARGIN_HOPS))
            return
        if voiced[0] >= _MIN_SILENCE_HOPS:
            self._drop(int(voiced[0]) - _MARGIN_HOPS)
            return
        yield self._clip(self._cut(quiet, int(voiced[0]), is_last))

    def _quiet(self) -> NDArray[np.bool_]:
        if not self.options.skip_silence:
            return np.zeros(len(self.powers), bool)
        level = self.loudest[0] if len(self.loudest) else 0.0
        return _smooth(self.powers) < max(_SILENCE_POWER, _SILENCE_SHARE * level)

    def _cut(self, quiet: NDArray[np.bool_], first_voiced: int, is_last: bool) -> int:
        """Choose the clip's length in hops: up to a silence, else to a quiet place, else all that is left."""
        hops = len(self.powers)
        for start, stop in _runs(quiet):
            if start > first_voiced and stop - start >= _MIN_SILENCE_HOPS and start + _MARGIN_HOPS <= self.chunk_hops:
                return max(start + _MARGIN_HOPS, self.min_hops)
        if is_last and hops <= self.chunk_hops:
            return hops
        low, high = self.chunk_hops // 2, min(self.chunk_hops, hops - self.min_hops)
        windows = np.convolve(self.powers[low:high], np.ones(_WINDOW_HOPS), "valid")
        quietest = np.flatnonzero(windows <= windows.min() + 1e-12)  # several where nothing at all is heard
        return low + int(quietest[len(quietest) // 2]) + _WINDOW_HOPS // 2

    def _clip(self, hops: int) -> AudioClip:
        samples = self.samples[: hops * self.hop]
        heard = np.concatenate([self.overlap, samples])
        start_s, end_s = self.position / self.rate, (self.position + len(samples)) / self.rate
        keep = round(self.options.overlap_s * self.rate)
        self._drop(hops)
        self.overlap = heard[len(heard) - min(keep, len(heard)) :]
        name = f"{self.name} from {start_s:.2f} s to {end_s:.2f} s"
        return AudioClip(start_s, end_s, input_from_samples(heard, name, self.audio_options))

    def _drop(self, hops: int) -> None:
        self.position += len(self.samples[: hops * self.hop])
        self.samples = self.samples[hops * self.hop :]
        self.powers = self.powers[hops:]
        self.measured = max(0, self.measured - hops)
        self.overlap = self.overlap[:0]

    def _add_powers(self, hops: Samples) -> None:
        self.powers = np.concatenate([self.powers, np.square(hops, dtype=np.float64).mean(axis=1)])

    def _measure(self) -> None:
        """Keep the loudest windows; the lowest of them is the recording's level, so that one click does not set it."""
        windows = (len(self.powers) - self.measured) // _WINDOW_HOPS
        new = self.powers[self.measured : self.measured + windows * _WINDOW_HOPS].reshape(-1, _WINDOW_HOPS).mean(axis=1)
        self.loudest = np.sort(np.concatenate([self.loudest, new]))[-_LOUD_WINDOWS:]
        self.measured += windows * _WINDOW_HOPS


def _smooth(powers: Powers) -> Powers:
    """Mean over the window around each hop, as far as there is one."""
    window = np.ones(min(_WINDOW_HOPS, len(powers)))
    return np.convolve(powers, window, "same") / np.convolve(np.ones(len(powers)), window, "same")


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
