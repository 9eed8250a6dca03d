"""The first sound track of a container (MP4, M4A, WebM, AVI, ... and MP3, AAC, AMR), decoded by FFmpeg through PyAV.

Containers rarely state a number of samples, so it has to be counted. What some do state is a duration, good enough to
notice that the end is missing.
"""

import io
from collections.abc import Iterator
from functools import partial

import numpy as np

from mimo_cli.errors import MediaError
from mimo_cli.media.libraries import av
from mimo_cli.media.samples import NoSoundError, Samples, SoundStream, to_float
from mimo_cli.media.source import Source, local_path, read_head

BLOCK_FRAMES = 1 << 16
"""Samples per channel of a block, about; codecs deliver some hundreds at a time."""

_MISSING_END_S = 0.5
"""Less may be the encoder's own padding, which durations count or leave out (AAC 0.05 s, HE-AAC 0.25 s)."""

_ESTIMATED_DURATION = frozenset({"aac", "amr", "amrnb", "amrwb", "mpegts", "mpeg", "ogg", "flv"})
"""Formats whose duration FFmpeg guesses from the bit rate, or that may be cut anywhere. MP3: unless it has a tag."""


def open_container(source: Source, name: str, reason: str = "") -> SoundStream:
    """Decode the first frame of the first sound track, which tells rate and channels.

    `reason` is what another decoder said before. Raises NoSoundError without a track or without a frame in it, else
    MediaError where it cannot be decoded.
    """
    try:
        with _open(source) as container:
            track = _first_track(container, name)
            frame = next(container.decode(track), None)
            may_be_nan = track.codec_context.name.startswith("pcm_f")
    except (av.FFmpegError, OSError, ValueError) as err:
        said = "; ".join(filter(None, (reason, getattr(err, "strerror", None) or str(err))))
        raise MediaError(
            f"{name} cannot be decoded as sound: {said}",
            hint="if it plays elsewhere, convert it with `ffmpeg -i IN OUT.wav`; if not, copy or download it again",
        ) from err
    if frame is None:
        raise NoSoundError(f"{name} holds no sound: its track has 0 samples")
    return SoundStream(
        name, frame.sample_rate, len(frame.layout.channels), None, may_be_nan, partial(_read_blocks, source, name)
    )


def _first_track(container: "av.container.InputContainer", name: str) -> "av.AudioStream":
    if container.streams.audio:
        return container.streams.audio[0]
    if container.streams.video:
        raise NoSoundError(f"{name} has no sound track", hint="give another file, or its pictures with --video")
    raise MediaError(f"{name} holds neither sound nor pictures", hint="it may be incomplete; copy or download it again")


def _open(source: Source) -> "av.container.InputContainer":
    file = io.BytesIO(source) if isinstance(source, bytes) else local_path(source)
    return av.open(file, mode="r", metadata_errors="ignore")


def _read_blocks(source: Source, name: str) -> Iterator[Samples]:
    """Yield blocks [N, channels] of about BLOCK_FRAMES; a change of rate or a missing end raises MediaError."""
    rate = done = held = 0
    end_s = 0.0
    pending: list[Samples] = []
    try:
        with _open(source) as container:
            promised_s = _promised_duration_s(container, source)
            start_s = _start_s(container)
            for frame in container.decode(container.streams.audio[0]):
                samples = _frame_samples(frame)
                rate = rate or frame.sample_rate
                if frame.sample_rate != rate:
                    change = f"from {rate} to {frame.sample_rate} Hz at {done / rate:.2f} s"
                    raise MediaError(f"{name} changes its sample rate {change}", hint="cut it there into two files")
                if held >= BLOCK_FRAMES or (pending and pending[0].shape[1] != samples.shape[1]):
                    yield np.concatenate(pending)
                    pending, held = [], 0
                pending.append(samples)
                held += len(samples)
                done += len(samples)
                end_s = max(end_s, _end_s(frame, len(samples)) - start_s)
    except (av.FFmpegError, OSError) as err:
        raise MediaError(
            f"{name} is damaged: it cannot be decoded from {done / max(rate, 1):.2f} s on ({err.strerror})",
            hint="copy or download it again, or repair it with `ffmpeg -i IN OUT.wav`",
        ) from err
    if pending:
        yield np.concatenate(pending)
    # A recorder that pauses leaves gaps between the times of frames: then the samples are fewer than the time is long.
    found_s = max(done / max(rate, 1), end_s)
    if promised_s is not None and found_s < promised_s - _MISSING_END_S:
        raise MediaError(
            f"{name} is truncated: its header promises {promised_s:.2f} s of sound, {found_s:.2f} s are there",
            hint="copy or download it again",
        )


def _start_s(container: "av.container.InputContainer") -> float:
    """Return when the sound track begins by the clock that its frames are timed with."""
    track = container.streams.audio[0]
    return float((track.start_time or 0) * (track.time_base or 0))


def _end_s(frame: "av.AudioFrame", num_samples: int) -> float:
    """Return when a frame ends by the clock of its track, 0 where it does not say when it begins."""
    if frame.pts is None or frame.time_base is None:
        return 0.0
    return float(frame.pts * frame.time_base) + num_samples / frame.sample_rate


def _promised_duration_s(container: "av.container.InputContainer", source: Source) -> float | None:
    """Return how long the sound track says it is, None where that would be a guess."""
    track = container.streams.audio[0]
    if _ESTIMATED_DURATION & set(container.format.name.split(",")):
        return None
    if container.format.name == "mp3" and not _has_length_tag(source):
        return None
    if track.duration is not None and track.time_base is not None:
        return float(track.duration * track.time_base)
    if container.duration is not None and not container.streams.video:
        return container.duration / av.time_base
    return None


def _has_length_tag(source: Source) -> bool:
    """Tell whether the first frame of an MP3, behind an ID3 tag (which may hold a picture), states the length."""
    head = read_head(source, 1024)
    if head.startswith(b"ID3") and len(head) >= 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        head = read_head(source, 10 + size + 1024)[10 + size :]
    return b"Xing" in head[:200] or b"Info" in head[:200]


def _frame_samples(frame: "av.AudioFrame") -> Samples:
    """Return a frame's samples as float32 [N, channels]."""
    samples = to_float(frame.to_ndarray())
    return samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
