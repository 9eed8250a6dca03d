"""24 kHz mono sound to the log-mel spectrogram that the audio tokenizer reads.

Owns the framing (one STFT over the whole signal, reflected at its two ends), the filter bank and the logarithm;
decoding, resampling and cutting into segments are elsewhere. `MelStream` takes a stream in blocks of any size and
`log_mel` a whole signal; products have one shape, so rows do not depend on how the stream was cut.
Magnitude (not power), HTK scale, no area normalization, natural logarithm: audio specification, section 5.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mimo_cli.errors import CheckpointError
from mimo_cli.media.samples import Samples, check_waveform

Mel = NDArray[np.float32]

_FLOOR = 1e-7
_ROWS_PER_CALL = 100
_BAND_FILTERS = 16
"""Neighbouring filters read few bins: their products are small, and stay on one core (see `resample._PRODUCT_SIZE`)."""


@dataclass(frozen=True)
class MelOptions:
    """The front end's numbers, named as in `audio_tokenizer/config.json`; lengths in samples, frequencies in Hz."""

    sampling_rate: int = 24_000
    nfft: int = 960
    hop_length: int = 240
    window_size: int = 960
    n_mels: int = 128
    fmin: float = 0.0
    fmax: float | None = None

    def __post_init__(self) -> None:
        if not 0 < 2 * self.hop_length <= self.nfft or not 0 < self.window_size <= self.nfft:
            raise CheckpointError(
                f"audio frames of {self.nfft} samples with a window of {self.window_size} every {self.hop_length} "
                "are not implemented: overlap by half at least and a window within the frame expected"
            )

    @property
    def min_samples(self) -> int:
        """Shortest signal that can be reflected; shorter ones are padded with zeros to this length."""
        return self.nfft // 2 + 1

    def num_rows(self, samples: int) -> int:
        """Count the rows of a signal of `samples`."""
        return 1 + max(samples, self.min_samples) // self.hop_length


@lru_cache(maxsize=4)
def mel_filterbank(options: MelOptions) -> NDArray[np.float32]:
    """Triangles of equal height on the HTK mel scale: float32 [nfft/2+1, n_mels]."""
    top = options.sampling_rate / 2 if options.fmax is None else options.fmax
    lowest, highest = 2595 * np.log10(1 + np.array([options.fmin, top]) / 700)
    corners = 700 * (10 ** (np.linspace(lowest, highest, options.n_mels + 2) / 2595) - 1)
    bins = np.linspace(0, options.sampling_rate // 2, options.nfft // 2 + 1)[:, None]
    rising = (bins - corners[:-2]) / np.diff(corners)[:-1]
    falling = (corners[2:] - bins) / np.diff(corners)[1:]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


@lru_cache(maxsize=4)
def _bands(options: MelOptions) -> tuple[tuple[slice, slice, NDArray[np.float32]], ...]:
    """Cut the filter bank into bands: the bins they read, the filters they give, and the weights between these."""
    bank, bands = mel_filterbank(options), []
    for first in range(0, options.n_mels, _BAND_FILTERS):
        filters = slice(first, min(first + _BAND_FILTERS, options.n_mels))
        used = np.flatnonzero(bank[:, filters].any(axis=1))
        bins = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        bands.append((bins, filters, np.ascontiguousarray(bank[bins, filters])))
    return tuple(bands)


@lru_cache(maxsize=4)
def _window(options: MelOptions) -> NDArray[np.float32]:
    """Periodic Hann window, centred in the transform's length: float32 [nfft]."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(options.window_size) / options.window_size)
    window = np.zeros(options.nfft, np.float32)
    left = (options.nfft - options.window_size) // 2
    window[left : left + options.window_size] = hann
    return window


class MelStream:
    """Spectrogram of a stream: `push` blocks in order, then `finish` once. Holds one frame and less than one call."""

    def __init__(self, options: MelOptions) -> None:
        self._options = options
        self._buffer: Samples = np.zeros(0, np.float32)
        self._pushed = 0
        self._rows = 0
        self._is_reflected = False

    def push(self, block: Samples) -> Mel:
        """Take float32 [N], any N, and return the rows [T, n_mels] that no later input can change."""
        self._pushed += len(block)
        self._buffer = np.concatenate([self._buffer, block])
        if not self._is_reflected:
            if len(self._buffer) < self._options.min_samples:
                return np.zeros((0, self._options.n_mels), np.float32)
            self._reflect_start()
        options = self._options
        ready = max(0, (len(self._buffer) - options.nfft) // options.hop_length + 1)
        return self._emit(ready // _ROWS_PER_CALL * _ROWS_PER_CALL)

    def finish(self) -> Mel:
        """Return the remaining rows; `MelOptions.num_rows(samples)` have come out in total."""
        options = self._options
        if not self._is_reflected:
            self._buffer = np.pad(self._buffer, (0, options.min_samples - len(self._buffer)))
            self._reflect_start()
        edge = options.nfft // 2
        tail = self._buffer[-edge - 1 : -1][::-1]
        self._buffer = np.concatenate([self._buffer, tail])
        return self._emit(options.num_rows(self._pushed) - self._rows)

    def _reflect_start(self) -> None:
        edge = self._options.nfft // 2
        self._buffer = np.concatenate([self._buffer[1 : edge + 1][::-1], self._buffer])
        self._is_reflected = True

    def _emit(self, rows: int) -> Mel:
        out = np.empty((rows, self._options.n_mels), np.float32)
        hop = self._options.hop_length
        for start in range(0, rows, _ROWS_PER_CALL):
            count = min(_ROWS_PER_CALL, rows - start)
            chunk = self._buffer[start * hop : (start + count - 1) * hop + self._options.nfft]
            out[start : start + count] = self._transform(chunk, count)
        self._buffer = self._buffer[rows * hop :]
        self._rows += rows
        return out

    def _transform(self, chunk: Samples, rows: int) -> Mel:
        """Transform the frames of a chunk; a short last call is filled up, so that every product has one shape."""
        options = self._options
        frames = np.zeros((_ROWS_PER_CALL, options.nfft), np.float32)
        cut = sliding_window_view(chunk, options.nfft)[:: options.hop_length]
        np.multiply(cut, _window(options), out=frames[:rows])
        spectrum = np.fft.rfft(frames, axis=1)
        magnitude = np.abs(spectrum).astype(np.float32, copy=False)
        mel = np.empty((_ROWS_PER_CALL, options.n_mels), np.float32)
        for bins, filters, weights in _bands(options):
            np.matmul(magnitude[:, bins], weights, out=mel[:, filters])
        return np.log(np.maximum(mel, _FLOOR))[:rows]


def log_mel(waveform: Samples, options: MelOptions = MelOptions()) -> Mel:
    """Log-mel spectrogram [T, n_mels] of a whole mono signal [N]; shorter than `min_samples` is padded with zeros.

    Raises MediaError for a signal that is empty, not one-dimensional or not finite.
    """
    waveform = check_waveform(waveform, options.sampling_rate)
    stream = MelStream(options)
    block = 60 * options.sampling_rate
    parts = [stream.push(waveform[start : start + block]) for start in range(0, len(waveform), block)]
    return np.concatenate([*parts, stream.finish()])


def segment_rows(rows: Iterable[Mel], segment_frames: int) -> Iterator[Mel]:
    """Regroup a stream of rows into pieces of `segment_frames` and a shorter last one, in order."""
    pending: list[Mel] = []
    held = 0
    for block in rows:
        while held + len(block) >= segment_frames:
            take = segment_frames - held
            yield np.concatenate([*pending, block[:take]])
            block, pending, held = block[take:], [], 0
        if len(block):
            pending.append(block)
            held += len(block)
    if held:
        yield np.concatenate(pending)
