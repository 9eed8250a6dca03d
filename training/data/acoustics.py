"""Acoustics: resampling, trimming and the augmentation of recordings, in numpy alone.

A recording is float32 mono within -1..1 throughout.
"""

import math

import numpy as np

from training.data.dice import Dice

SPEEDS = ((12, 13), (14, 15), (15, 16), (18, 19), (24, 25), (40, 41), (41, 40), (25, 24), (19, 18), (16, 15), (27, 25))
SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def resample(samples: np.ndarray, sample_rate: int, to_rate: int) -> np.ndarray:
    """The recording at another rate, band-limited, by its Fourier transform (whole clips, a few seconds long)."""
    if sample_rate == to_rate or not len(samples):
        return samples.astype(np.float32)
    common = math.gcd(sample_rate, to_rate)
    units, to_units = sample_rate // common, to_rate // common
    blocks = _quick_length(-(-len(samples) // units))  # silence fills up to a length that transforms quickly
    spectrum = np.fft.rfft(samples, blocks * units)
    wanted = blocks * to_units // 2 + 1
    spectrum = spectrum[:wanted] if wanted <= len(spectrum) else np.pad(spectrum, (0, wanted - len(spectrum)))
    length = round(len(samples) * to_rate / sample_rate)
    return (np.fft.irfft(spectrum, blocks * to_units)[:length] * (to_rate / sample_rate)).astype(np.float32)


def _quick_length(least: int) -> int:
    """The next length with no prime factor above 3."""
    power = 1 << max(0, least - 1).bit_length()
    return min(length for length in (power, power // 4 * 3, power // 16 * 9, power) if length >= least)


def loud_part(samples: np.ndarray, sample_rate: int, margin_s: float = 0.02) -> slice:
    """Where the recording is louder than 1 % of its peak, with a margin at both ends."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=1e-9))
    if not len(loud):
        return slice(0, len(samples))
    margin = round(margin_s * sample_rate)
    return slice(max(0, int(loud[0]) - margin), min(len(samples), int(loud[-1]) + margin))


def coloured_noise(length: int, dice: Dice) -> np.ndarray:
    """Random-phase noise of unit power: white, pink, brown or a band of it."""
    whole = _quick_length(length)
    parts = dice.rng.standard_normal((whole // 2 + 1, 2), np.float32)
    spectrum = parts[:, 0] + 1j * parts[:, 1]
    frequency = np.linspace(0, 1, len(spectrum), dtype=np.float32)
    spectrum *= np.maximum(frequency, 1e-3) ** dice.pick((0.0, 0.0, -0.5, -1.0))
    if dice.chance(0.3):
        low = dice.uniform(0, 0.4)
        spectrum *= (frequency > low) & (frequency < low + dice.uniform(0.15, 0.6))
    noise = np.fft.irfft(spectrum, whole)[:length]
    return (noise / (noise.std() + 1e-9)).astype(np.float32)


def add_noise(samples: np.ndarray, snr_db: float, dice: Dice) -> np.ndarray:
    """The recording with noise at this ratio to the power of its loud part."""
    speech = samples[np.abs(samples) > 0.05 * np.abs(samples).max(initial=1e-9)]
    level = float(np.sqrt(np.mean(speech**2))) if len(speech) else 0.01
    return samples + coloured_noise(len(samples), dice) * (level * 10 ** (-snr_db / 20))


def augment(
    samples: np.ndarray,
    sample_rate: int,
    rng: np.random.Generator,
    *,
    snr_db: float | None = None,
    vary_rate: bool = True,
) -> tuple[np.ndarray, int, float, float]:
    """A changed recording of the same words: (samples, sample rate, lead in seconds, time factor).

    Silence before and after, a speed change of up to 8 %, another sample rate, level, noise (5 to 35 dB, or exactly
    `snr_db`), a little clipping or a telephone band. An event at t seconds is afterwards at `lead + t * factor`.
    """
    dice = Dice(rng)
    factor = 1.0
    if dice.chance(0.5):
        slow, quick = dice.pick(SPEEDS)
        factor = slow / quick
        samples = resample(samples, quick, slow)
    to_rate = sample_rate
    if vary_rate and dice.chance(0.5):
        to_rate = dice.pick(SAMPLE_RATES)
        samples = resample(samples, sample_rate, to_rate)
    lead_s = dice.uniform(0.0, 0.12) if dice.chance(0.6) else dice.uniform(0.1, 0.7)
    tail_s = dice.uniform(0.05, 0.25) if dice.chance(0.6) else dice.uniform(0.2, 0.8)
    samples = np.pad(samples, (round(lead_s * to_rate), round(tail_s * to_rate)))
    if snr_db is not None:
        samples = add_noise(samples, snr_db, dice)
    elif dice.chance(0.55):
        samples = add_noise(samples, dice.uniform(5, 35) if dice.chance(0.5) else dice.uniform(18, 35), dice)
    if dice.chance(0.15):
        samples = tilt(samples, dice.uniform(-0.6, 0.6))
    peak = float(np.abs(samples).max(initial=1e-9))
    level = 10 ** (dice.uniform(-28, 0) / 20) * 0.98
    samples = samples * (level / peak)
    if dice.chance(0.04):
        samples = np.clip(samples, -0.6 * level, 0.6 * level)
    return samples.astype(np.float32), to_rate, round(lead_s * to_rate) / to_rate, factor


def tilt(samples: np.ndarray, slope: float) -> np.ndarray:
    """The recording with its spectrum tilted: a negative slope dulls it as a bad loudspeaker does."""
    whole = _quick_length(len(samples))
    spectrum = np.fft.rfft(samples, whole)
    frequency = np.linspace(0.02, 1, len(spectrum), dtype=np.float32)
    return np.fft.irfft(spectrum * frequency**slope, whole)[: len(samples)].astype(np.float32)
