"""Media made ready for the towers, by the package's own front ends: what costs time on a CPU and needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mimo_cli.chat.media_options import MediaOptions
from mimo_cli.media.image import preprocess_image
from mimo_cli.media.mel import log_mel
from mimo_cli.media.resample import Resampler
from mimo_cli.media.video import preprocess_video
from training.data.sample import Film, Part, Picture, Sample, Sound

Medium = Picture | Sound | Film


@dataclass(frozen=True)
class ReadyPicture:
    """One half of each patch (a still's two halves are equal), [P, 768] float32; `grid` height and width in patches."""

    patches: np.ndarray
    grid: tuple[int, int]


@dataclass(frozen=True)
class ReadyFilm:
    """Patches [P, 1536] of every temporal step, their common grid, and when each step begins."""

    steps: tuple[np.ndarray, ...]
    grid: tuple[int, int]
    times_s: tuple[float, ...]


@dataclass(frozen=True)
class ReadySound:
    """Log-mel rows [T, 128]."""

    mel: np.ndarray


Ready = ReadyPicture | ReadyFilm | ReadySound


@dataclass(frozen=True)
class ReadyGroup:
    """Samples that may share media: `used` says of each sample which of `media` stand in it, in order."""

    samples: tuple[Sample, ...]
    used: tuple[tuple[int, ...], ...]
    media: tuple[Ready, ...]


def ready_group(samples: Sequence[Sample], options: MediaOptions) -> ReadyGroup:
    """Run the front ends of a group's media, each once; the samples keep an empty picture in every medium's place."""
    numbers: dict[int, int] = {}
    media: list[Ready] = []
    light, used = [], []
    for sample in samples:
        mine = []
        for part in sample.parts:
            if isinstance(part, str):
                continue
            if id(part) not in numbers:
                numbers[id(part)] = len(media)
                media.append(make_ready(part, options))
            mine.append(numbers[id(part)])
        turns = tuple((_light(said), answer) for said, answer in sample.earlier)
        light.append(replace(sample, user=_light(sample.user), turns=turns))
        used.append(tuple(mine))
    return ReadyGroup(tuple(light), tuple(used), tuple(media))


def _light(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(part if isinstance(part, str) else _NOTHING for part in parts)


_NOTHING = Picture(np.zeros((0, 0, 3), np.uint8))


def make_ready(medium: Medium, options: MediaOptions) -> Ready:
    """Run the front end of a medium's kind."""
    if isinstance(medium, Picture):
        values, grid = preprocess_image(medium.pixels, options.image)
        half = values.reshape(len(values), 3, 2, -1)[:, :, 0].reshape(len(values), -1)
        return ReadyPicture(half, (int(grid[0, 1]), int(grid[0, 2])))
    if isinstance(medium, Sound):
        return ReadySound(log_mel(to_model_rate(medium.samples, medium.sample_rate)))
    values, grid, times_s = preprocess_video(medium.frames, medium.fps, options.video)
    steps, height, width = grid[0].tolist()
    starts = tuple(times_s[:: options.video.pixels.temporal_patch_size].tolist())
    return ReadyFilm(tuple(np.split(values, steps)), (height, width), starts)


def to_model_rate(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Bring a recording to 24 kHz by the package's own resampler."""
    resampler = Resampler(sample_rate, 24_000)
    return np.concatenate([resampler.push(samples), resampler.finish()]).astype(np.float32)
