"""Which frames of a film are taken, when they are, and how large they may be. Pure numbers, no decoding.

Source: vision specification, sections 10.1 to 10.4; float32 and float64 steps as in the reference, because labels and
sound rows are cut from these times.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mimo_cli.errors import MediaError
from mimo_cli.media.options import VideoOptions


def sample_indices(total_frames: int, rate_fps: float, options: VideoOptions) -> NDArray[np.int64]:
    """Choose an even number of frames, first and last included, evenly spread over a film.

    rate_fps is the container's average rate. Returns ascending int64 indices. Raises MediaError for a film of
    fewer than two usable frames or without a usable rate.
    """
    if not (math.isfinite(rate_fps) and rate_fps > 0):
        raise MediaError(f"the film's frame rate is {rate_fps}; a positive number of frames per second was expected")
    low = math.ceil(options.min_frames / 2) * 2
    high = math.floor(options.max_frames / 2) * 2
    wanted = total_frames / rate_fps * options.fps
    wanted = min(min(max(wanted, low), high), total_frames)
    count = math.floor(wanted / 2) * 2
    if not 2 <= count <= total_frames:
        raise MediaError(
            f"a film needs at least 2 frames to sample, found {total_frames} (max_frames {options.max_frames})",
            hint="pass a still picture as an image, and allow at least 2 frames",
        )
    # numpy's own linspace is the definition: others differ in the last bit and so in a frame now and then.
    return np.unique(np.linspace(0, total_frames - 1, num=count, dtype=np.int64))


def frame_times_s(indices: NDArray[np.int64], rate_fps: float) -> NDArray[np.float32]:
    """Return the time of each frame in seconds, by one float32 division as the reference does."""
    return indices.astype(np.float32) / np.float32(rate_fps)


def segment_end_s(times_s: NDArray[np.float32]) -> np.float32:
    """Return when the last sampled frame ends: one mean spacing after it, in float32; times_s is not padded."""
    if len(times_s) < 2:
        return np.float32(times_s[-1] + np.float32(1))
    rate = np.float32(1) / np.float32(times_s[1] - times_s[0])
    return np.float32(times_s[-1] + np.float32(1) / rate)


def frame_pixel_cap(num_frames: int, options: VideoOptions) -> int:
    """Share the pixel budget of a film among its frames; num_frames is counted before padding to pairs."""
    share = (options.pixels.temporal_patch_size * options.total_max_pixels) // num_frames
    return max(options.min_pixels, min(options.max_pixels, share))


def pad_to_steps(values: NDArray, step_frames: int = 2) -> NDArray:
    """Repeat the last entry until the count is a whole number of temporal steps."""
    missing = -len(values) % step_frames
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing else values
