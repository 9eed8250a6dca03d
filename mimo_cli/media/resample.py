"""Mono sound at any rate to another rate, by the windowed-sinc filter the vendor's serving code uses.

The filter is part of the model: a longer, better one gives other codes for sources below 24 kHz (audio specification,
section 4). `Resampler` takes a stream in blocks of any size; `resample` is the same thing for a whole signal. Products
always have the same shape, so the samples do not depend on how the stream was cut.

    n = target/g, o = rate/g outputs and inputs of a period, g = gcd(rate, target)
    R tiles of a period, each P outputs wide and fed by V inputs: y [M, R, P] = x [R, M, V] @ taps [R, V, P]
    for M periods at a time; C such products make a call.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mimo_cli.errors import MediaError
from mimo_cli.media.samples import Samples, check_waveform

MAX_RATE_HZ = 384_000
_ZERO_CROSSINGS = 6
_ROLLOFF = 0.99
_TILE_OUTPUTS = 128
_CALL_OUTPUTS = 24_000
"""Outputs of a call, about: a second at 24 kHz. Larger calls gain nothing and hold more."""
_PRODUCT_SIZE = 1 << 18
"""Multiplications of one matrix product. BLAS runs larger ones on all cores, which on a busy machine is 20 times slower
(its threads spin), and the result would depend on their number."""


@dataclass(frozen=True)
class _Filter:
    """Taps of one pair of rates, cut into tiles. `first` [R] is each tile's first input, relative to its period."""

    inputs: int
    outputs: int
    first: NDArray[np.int64]
    taps: NDArray[np.float32]


def _tap(position: NDArray[np.float64], o: int, n: int) -> NDArray[np.float64]:
    """Evaluate the filter at a distance in input samples from the output's own place."""
    base = _ROLLOFF * min(o, n)
    t = np.clip(base * position / o, -_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    return base / o * np.sinc(t) * np.cos(np.pi * t / (2 * _ZERO_CROSSINGS)) ** 2


def _largest_divisor(number: int, limit: int) -> int:
    return next(divisor for divisor in range(min(number, max(limit, 1)), 0, -1) if number % divisor == 0)


@lru_cache(maxsize=8)
def _build_filter(rate: int, target: int) -> _Filter:
    """Cut the filter of a pair of rates into dense tiles.

    Small periods are repeated until a tile is worth a matrix product. Periods of unusual rates (44 101 Hz: 24 000
    outputs) are divided instead, about as wide as the filter is long, or the taps would be gigabytes of zeros.
    """
    g = gcd(rate, target)
    o, n = rate // g, target // g
    half_width = ceil(_ZERO_CROSSINGS * o / (_ROLLOFF * min(o, n)))
    if n <= 4 * _TILE_OUTPUTS and o <= 8 * _TILE_OUTPUTS:
        repeats = max(1, _TILE_OUTPUTS // max(o, n))
        tile = n * repeats
    else:
        repeats = 1
        tile = _largest_divisor(n, min(_TILE_OUTPUTS, 2 * half_width * n // o))
    period_in, period_out = o * repeats, n * repeats
    starts = np.arange(0, period_out, tile)
    first = starts * o // n - half_width
    width = (tile - 1) * o // n + 2 * half_width + 2
    inputs = first[:, None, None] + np.arange(width)[None, :, None]
    outputs = starts[:, None, None] + np.arange(tile)[None, None, :]
    taps = _tap(inputs - outputs * (o / n), o, n).astype(np.float32)
    return _Filter(period_in, period_out, first, taps)


class Resampler:
    """Resample a stream: `push` blocks in order, then `finish` once.

    Holds about a second of input beyond the block. Raises MediaError for a rate outside 1..MAX_RATE_HZ.
    """

    def __init__(self, rate: int, target: int) -> None:
        if rate != int(rate) or not 1 <= rate <= MAX_RATE_HZ:
            raise MediaError(
                f"the sample rate is {rate} Hz, a whole number from 1 to {MAX_RATE_HZ} expected",
                hint="convert the recording, for example with `ffmpeg -i IN -ar 48000 OUT.wav`",
            )
        self._rate, self._target = int(rate), target
        self._pushed = self._returned = 0
        if self._rate == target:
            return
        self._filter = _build_filter(self._rate, target)
        _, inputs, outputs = self._filter.taps.shape
        periods = max(1, _CALL_OUTPUTS // self._filter.outputs)
        self._product_periods = min(periods, max(1, _PRODUCT_SIZE // (inputs * outputs)))
        self._periods = periods // self._product_periods * self._product_periods
        self._lead = int(-self._filter.first[0])  # zeros before the first sample
        self._buffer: Samples = np.zeros(self._lead, np.float32)
        self._need = (
            int(self._filter.first[-1])
            + self._lead
            + self._filter.taps.shape[1]
            + ((self._periods - 1) * self._filter.inputs)
        )

    def push(self, block: Samples) -> Samples:
        """Take mono float32 [N], any N, and return the samples that no later input can change."""
        self._pushed += len(block)
        if self._rate == self._target:
            return block
        self._buffer = np.concatenate([self._buffer, block])
        return self._emit()

    def finish(self) -> Samples:
        """Return the rest; in total ceil(target * inputs / rate) samples have come out."""
        if self._rate == self._target:
            return np.zeros(0, np.float32)
        total = resampled_length(self._pushed, self._rate, self._target)
        done = self._returned
        calls = ceil(max(0, total - done) / (self._periods * self._filter.outputs))
        room = (calls - 1) * self._periods * self._filter.inputs + self._need if calls else 0
        self._buffer = np.concatenate([self._buffer, np.zeros(max(0, room - len(self._buffer)), np.float32)])
        return self._emit()[: total - done]

    def _emit(self) -> Samples:
        f, step = self._filter, self._periods * self._filter.inputs
        calls = max(0, (len(self._buffer) - self._need) // step + 1)
        out = np.empty((calls, self._periods * f.outputs), np.float32)
        for call in range(calls):
            chunk = self._buffer[call * step : call * step + self._need]
            windows = sliding_window_view(chunk, f.taps.shape[1])
            index = (f.first + self._lead)[:, None] + np.arange(self._periods) * f.inputs
            inputs = windows[index].reshape(len(f.first), -1, self._product_periods, f.taps.shape[1])
            product = np.matmul(inputs, f.taps[:, None])  # [R, C, M, V] @ [R, 1, V, P]
            out[call] = product.transpose(1, 2, 0, 3).reshape(-1)
        self._buffer = self._buffer[calls * step :]
        self._returned += out.size
        return out.reshape(-1)


def resampled_length(samples: int, rate: int, target: int) -> int:
    """Count the samples that `samples` at `rate` become at `target` Hz."""
    return -(-samples * target // rate)


def resample(waveform: Samples, rate: int, target: int = 24_000) -> Samples:
    """Resample a whole mono signal [N] to float32 [ceil(N * target / rate)]; equal rates leave it as it is.

    Raises MediaError for an impossible rate and for a signal that is empty, not one-dimensional or not finite.
    """
    waveform = check_waveform(waveform, rate)
    stream = Resampler(rate, target)
    block = max(1, 16 * int(rate))  # whole hours arrive as views: the copies stay small
    parts = [stream.push(waveform[start : start + block]) for start in range(0, len(waveform), block)]
    return np.concatenate([*parts, stream.finish()]) if rate != target else waveform
