"""The choices a caller has about pictures and films; plain numbers, with the release's values as defaults.

Whoever knows the checkpoint fills them from its `processor_config`. Where public implementations disagree about a step,
the choice has a name here; the first one listed is the default (vision specification, section 15).
"""

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mimo_cli.errors import UsageError

Statistics: TypeAlias = Literal["clip", "imagenet"]
ResizeFilter: TypeAlias = Literal["bilinear", "bicubic_antialias"]
SmallSideRule: TypeAlias = Literal["round", "truncate", "floor"]

PREPROCESSOR_MIN_PIXELS, PREPROCESSOR_MAX_PIXELS = 3136, 12845056
"""Limits of the sister release's `preprocessor_config.json`, for checkpoints run without a `processor_config`."""


@dataclass(frozen=True)
class PixelOptions:
    """How a decoded frame becomes patches.

    statistics: mean and standard deviation subtracted and divided by. resize_filter: `bilinear` without antialias as
    served, or the antialiased bicubic of the Hugging Face image processor. small_side, for a side below one unit:
    scale both sides up and `round` or `truncate` them, or `floor` each target side at one unit.
    """

    statistics: Statistics = "clip"
    resize_filter: ResizeFilter = "bilinear"
    small_side: SmallSideRule = "round"
    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2

    @property
    def unit_px(self) -> int:
        """Side of the square of pixels behind one language-model token."""
        return self.patch_size * self.merge_size


@dataclass(frozen=True)
class ImageOptions:
    """Pixel limits of a picture after resizing; `faithful` drops alpha and ignores EXIF as the serving stack does."""

    min_pixels: int = 8192
    max_pixels: int = 8388608
    faithful: bool = False
    pixels: PixelOptions = field(default_factory=PixelOptions)

    def __post_init__(self) -> None:
        check_pixel_limits(self.min_pixels, self.max_pixels)


@dataclass(frozen=True)
class VideoOptions:
    """Sampling rate (frames per second), frame count limits and pixel limits after resizing, per frame and in total."""

    fps: float = 1.0
    min_frames: int = 8
    max_frames: int = 3600
    min_pixels: int = 8192
    max_pixels: int = 8388608
    total_max_pixels: int = 268435456
    use_audio: bool = True
    pixels: PixelOptions = field(default_factory=PixelOptions)

    def __post_init__(self) -> None:
        check_pixel_limits(self.min_pixels, self.max_pixels)
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"the sampling rate must be above 0 frames per second, found {self.fps}")
        if self.min_frames < 1 or self.max_frames < 1 or self.total_max_pixels < 1:
            raise UsageError(
                "min_frames, max_frames and total_max_pixels must be at least 1, found "
                f"{self.min_frames}, {self.max_frames} and {self.total_max_pixels}"
            )


def check_pixel_limits(min_pixels: int, max_pixels: int) -> None:
    """Raise UsageError unless 1 <= min_pixels <= max_pixels."""
    if not 1 <= min_pixels <= max_pixels:
        raise UsageError(f"the pixel limits must satisfy 1 <= min <= max, found {min_pixels} and {max_pixels}")
