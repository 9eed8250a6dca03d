"""Films to pixel values: which frames are taken, at what size, and in chunks of a few temporal steps.

A VideoInput holds no frame. Each call of its `chunks()` decodes the film once from the start; decoded frames and pixel
values of at most 8 temporal steps are alive at once, whatever the length of the film.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mimo_cli.errors import MediaError
from mimo_cli.media.audio import AudioOptions, open_sound_track
from mimo_cli.media.film import Film, open_film, read_frames
from mimo_cli.media.options import VideoOptions
from mimo_cli.media.patches import frames_to_patches, grid_of
from mimo_cli.media.resize import target_size
from mimo_cli.media.sampling import frame_pixel_cap, frame_times_s, pad_to_steps, sample_indices, segment_end_s
from mimo_cli.media.sniff import HEAD_BYTES, MIXED_FORMATS, VIDEO_FORMATS, identify, refuse_unsupported
from mimo_cli.media.source import MediaFile, Source, read_head, source_name
from mimo_cli.media.types import MAX_CHUNK_STEPS, AudioInput, PixelChunk, VideoInput

MAX_CHUNK_BYTES = 128 << 20
"""Pixel values of one chunk, unless one temporal step alone is larger (up to 0.2 GB at the largest frame size)."""


def open_video(
    source: Source,
    options: VideoOptions | None = None,
    audio_options: AudioOptions | None = None,
    *,
    name: str | None = None,
) -> VideoInput:
    """Open a film file (or its bytes), choose its frames and, if wanted, open its sound track.

    Bytes are copied to a temporary file, which lives as long as the result. `name` stands for the source in messages.
    A sound track that cannot be used is left out, and a note says why. Raises MediaError if it is no film, its pictures
    cannot be decoded, or it has fewer than two frames.
    """
    options = options or VideoOptions()
    name = name or source_name(source)
    try:
        _check_format(source)
        file = MediaFile(source)
        film = open_film(file.path)
        indices = sample_indices(film.num_frames, film.rate_fps, options)
        grid = _grid(film.size_px[1], film.size_px[0], len(indices), options)
    except MediaError as err:
        raise MediaError(f"{name}: {err}", hint=err.hint) from err
    audio: AudioInput | None = None
    sound_notes: tuple[str, ...] = ()
    if options.use_audio and film.has_sound:
        audio, sound_notes = _usable_sound(source, audio_options, name)
    step_frames = options.pixels.temporal_patch_size
    times = frame_times_s(indices, film.rate_fps)
    return VideoInput(
        source=name,
        size_px=film.size_px,
        grid_thw=grid,
        timestamps_s=pad_to_steps(times, step_frames)[::step_frames],
        segment_end_s=segment_end_s(times),
        step_tokens=grid[1] * grid[2] // options.pixels.merge_size**2,
        read_chunks=_FilmChunks(file, film, tuple(map(int, indices)), grid, options),
        audio=audio,
        notes=film.notes + sound_notes,
    )


def _usable_sound(source: Source, options: AudioOptions | None, name: str) -> tuple[AudioInput | None, tuple[str, ...]]:
    """Open the sound track; one that cannot be read costs a note, not the pictures as well."""
    try:
        return open_sound_track(source, options, name=name), ()
    except MediaError as err:
        return None, (f"its sound track is left out: {err}",)


def _check_format(source: Source) -> None:
    """Raise MediaError unless the first bytes are those of a container for films (an animated GIF is one)."""
    head = read_head(source, HEAD_BYTES)
    if not head:
        raise MediaError("the file is empty (0 bytes)")
    refuse_unsupported(head, "the file")
    found = identify(head)
    if found not in VIDEO_FORMATS | MIXED_FORMATS | {"gif"}:
        known = f"those of {found}" if found else "of no known format"
        raise MediaError(f"not a film: its bytes are {known}", hint="films are MP4, MOV, MKV, WebM, AVI, MPEG or FLV")


@dataclass(frozen=True)
class _FilmChunks:
    """Decodes the film each time it is called; `file` keeps a temporary copy alive."""

    file: MediaFile
    film: Film
    indices: tuple[int, ...]
    grid: tuple[int, int, int]
    options: VideoOptions

    def __call__(self) -> Iterator[PixelChunk]:
        frames = _padded(read_frames(self.film, self.indices), self.options.pixels.temporal_patch_size)
        yield from _chunks(frames, self.grid, self.options)


def _padded(frames: Iterator[NDArray[np.uint8]], step_frames: int) -> Iterator[NDArray[np.uint8]]:
    """Repeat the last frame until the count is a whole number of temporal steps."""
    count, last = 0, None
    for last in frames:
        count += 1
        yield last
    if last is not None:
        yield from [last] * (-count % step_frames)


def _chunks(
    frames: Iterator[NDArray[np.uint8]], grid: tuple[int, int, int], options: VideoOptions
) -> Iterator[PixelChunk]:
    """Turn frames into pixel values, a few temporal steps at a time."""
    steps, rows, columns = grid
    pixels = options.pixels
    step_bytes = rows * columns * pixels.patch_size**2 * 3 * pixels.temporal_patch_size * 4
    chunk_steps = max(1, min(MAX_CHUNK_STEPS, MAX_CHUNK_BYTES // step_bytes))
    for start in range(0, steps, chunk_steps):
        part = min(chunk_steps, steps - start), rows, columns
        some = islice(frames, part[0] * pixels.temporal_patch_size)
        yield frames_to_patches(some, part, pixels), np.array([part], np.int64)


def preprocess_video(
    frames: NDArray[np.uint8], fps: float, options: VideoOptions | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Sample, resize, normalise and cut a whole film frames [F, H, W, 3] uint8 RGB of an average rate fps.

    Returns pixel_values [t*h*w, 1536] float32, grid_thw [1, 3] int64 and the time of each sampled frame in seconds,
    float32, the last one repeated if the count is odd. Raises MediaError.
    """
    options = options or VideoOptions()
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise MediaError(f"frames [F, H, W, 3] of uint8 were expected, found {frames.shape} of {frames.dtype}")
    indices = sample_indices(len(frames), fps, options)
    return preprocess_frames(frames[indices], frame_times_s(indices, fps), options)


def preprocess_frames(
    frames: NDArray[np.uint8], times_s: NDArray[np.float32], options: VideoOptions
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Do what preprocess_video does after sampling, with the sampled frames [n, H, W, 3] and their times [n]."""
    step_frames = options.pixels.temporal_patch_size
    grid = _grid(frames.shape[1], frames.shape[2], len(frames), options)
    padded = pad_to_steps(np.arange(len(frames)), step_frames)
    pixel_values = frames_to_patches((frames[index] for index in padded), grid, options.pixels)
    return pixel_values, np.array([grid], np.int64), pad_to_steps(times_s, step_frames)


def _grid(height: int, width: int, num_frames: int, options: VideoOptions) -> tuple[int, int, int]:
    """Return the patch grid (t, h, w) of num_frames frames that share the pixel budget."""
    cap = frame_pixel_cap(num_frames, options)
    target = target_size(height, width, options.min_pixels, cap, options.pixels)
    steps = -(-num_frames // options.pixels.temporal_patch_size)
    return grid_of(steps, *target, options.pixels)
