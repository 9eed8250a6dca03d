"""Resized frames to `pixel_values`: normalised, cut into patches, in the order the vision tower reads them.

Patch order, slowest first: temporal step, unit row, unit column, then the patches of a unit row by row. Inside a patch:
channel (R, G, B), time, row, column. Source: vision specification, sections 6.3 and 6.4.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mimo_cli.media.options import PixelOptions, Statistics
from mimo_cli.media.resize import resize

_STATISTICS: dict[Statistics, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)),
}
"""Mean and standard deviation per channel (R, G, B) of values in 0..1."""


def normalise(frame: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """Subtract 255 x mean and divide by 255 x deviation per channel; frame [H, W, 3] in 0..255 is overwritten."""
    mean, deviation = (np.array(values, np.float32) * np.float32(255) for values in _STATISTICS[statistics])
    frame -= mean
    frame /= deviation
    return frame


def grid_of(num_steps: int, height: int, width: int, options: PixelOptions) -> tuple[int, int, int]:
    """Return (t, h, w): temporal steps and patches per side of frames already at their target size."""
    return num_steps, height // options.patch_size, width // options.patch_size


def frames_to_patches(
    frames: Iterable[NDArray[np.uint8]], grid: tuple[int, int, int], options: PixelOptions
) -> NDArray[np.float32]:
    """Resize, normalise and cut t x temporal_patch_size frames [h, w, 3] uint8 RGB, taken one at a time.

    Returns pixel_values [t*h*w, 3*temporal_patch_size*patch_size**2]. Peak memory: the result and one resized frame.
    """
    steps, rows, columns = grid
    merge, patch, step_frames = options.merge_size, options.patch_size, options.temporal_patch_size
    values = np.empty((steps, rows // merge, columns // merge, merge, merge, 3, step_frames, patch, patch), np.float32)
    source, tiles = None, np.empty(0, np.float32)
    for number, frame in zip(range(steps * step_frames), frames, strict=True):
        if frame is not source:  # the two halves of a still picture are one frame
            source, tiles = frame, np.empty(0, np.float32)  # lets the last one go first
            resized = resize(frame, rows * patch, columns * patch, options.resize_filter)
            tiles = normalise(resized, options.statistics)
            del resized
            tiles = tiles.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
        values[number // step_frames, :, :, :, :, :, number % step_frames] = tiles.transpose(0, 3, 1, 4, 6, 2, 5)
    return values.reshape(steps * rows * columns, -1)
