"""Decoding a film: what is in the file, and its frames in order. OpenCV decodes; PyAV where OpenCV cannot.

Frames are numbered as they come out of the decoder and turned upright as the container says. A damaged packet that
gives no frame takes a number all the same, so that the frames behind it keep their times. Nothing is kept: one decoded
frame is alive at a time.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mimo_cli.errors import MediaError
from mimo_cli.media.libraries import av, cv2

Decoder: TypeAlias = Literal["opencv", "pyav"]
Frame: TypeAlias = NDArray[np.uint8]
_Coded = TypeVar("_Coded")

_RATE_TOLERANCE = 0.1  # a header's average rate further than this from the packets' times is not believed
_END_MISSES = 64  # OpenCV says the same of a damaged packet and of the end: more in a row are the end
_HEAD_BYTES = 16  # what a packet starts with; all zero where part of a file never arrived


@dataclass(frozen=True)
class Film:
    """What a film file holds: frames that can really be decoded, their average rate, (width, height) upright."""

    path: str
    decoder: Decoder
    num_frames: int
    rate_fps: float
    size_px: tuple[int, int]
    has_sound: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Packets:
    """What reading through the file without decoding tells; the duration is what the header claims, 0 if nothing.

    is_suspect: a packet is marked as damaged or empty, and may give no frame.
    """

    num_frames: int
    header_duration_s: float
    header_rate_fps: float
    packet_rate_fps: float
    has_sound: bool
    is_suspect: bool = False

    @property
    def rate_fps(self) -> float:
        """The container's average rate, unless it is missing or contradicts the times of the packets."""
        measured, stated = self.packet_rate_fps, self.header_rate_fps
        if measured > 0 and not abs(stated / measured - 1) <= _RATE_TOLERANCE:
            return measured
        return stated

    def notes(self, num_frames: int, num_lost: int) -> tuple[str, ...]:
        """Say how much of the film is missing, if more than half a second and a fiftieth of it is, and frames lost."""
        notes = []
        found_s = num_frames / self.rate_fps if self.rate_fps > 0 else 0.0
        if self.header_duration_s - found_s > max(0.5, self.header_duration_s / 50):
            promised = f"{self.header_duration_s:.1f} s promised, {num_frames} frames ({found_s:.1f} s) found"
            notes.append(f"the film is cut short or damaged: {promised}")
        if num_lost:
            notes.append(f"the film is damaged: {num_lost} of {self.num_frames} frames cannot be decoded")
        return tuple(notes)


def open_film(path: str) -> Film:
    """Look through a film file and decode its first frame.

    The whole file is read once but not decoded, unless the header's count of frames differs from what is there or part
    of it looks damaged: then all frames are decoded to count them, because a prompt is laid out from that count. Raises
    MediaError.
    """
    packets = _read_packets(path)
    for decoder in ("opencv", "pyav"):
        first = next(_decode(path, decoder, (0,), packets.num_frames), None)
        if first is not None:
            break
    else:
        raise MediaError("no frame can be decoded: the film is damaged or its codec is unknown")
    num_frames, num_lost = packets.num_frames, 0
    if decoder == "pyav" or packets.is_suspect or _stated_frames(path) != num_frames:
        num_frames, num_decoded = _count(path, decoder, packets.num_frames)
        # Some decoders pass over a damaged packet in silence; other packets may give no frame by right.
        num_lost = max(num_frames, packets.num_frames if packets.is_suspect else 0) - num_decoded
    size_px = first.shape[1], first.shape[0]
    notes = packets.notes(num_frames, num_lost)
    return Film(path, decoder, num_frames, packets.rate_fps, size_px, packets.has_sound, notes)


def read_frames(film: Film, indices: Sequence[int]) -> Iterator[Frame]:
    """Decode a film once and yield the frames [H, W, 3] uint8 RGB of ascending numbers.

    The next frame stands in for one that is damaged, the last one for a short damaged end. Raises MediaError for a long
    one, or if the file no longer holds as many frames as were found when it was opened.
    """
    count, frame = 0, None
    for frame in _decode(film.path, film.decoder, indices, film.num_frames):
        count += 1
        yield frame
    if count == len(indices):
        return
    is_long = film.num_frames - indices[count] > _END_MISSES
    if frame is None or is_long or _read_packets(film.path).num_frames < film.num_frames:
        raise MediaError(
            f"the film is damaged: frame {indices[count]} of {film.num_frames} cannot be decoded",
            hint="write it anew with a video tool, for example `ffmpeg -i FILM -c:v libx264 new.mp4`",
        )
    yield from [frame] * (len(indices) - count)


def count_frames(path: str, decoder: Decoder) -> int:
    """Decode a whole film and count its frames up to the last one that can be decoded."""
    return _count(path, decoder, 0)[0]


def _count(path: str, decoder: Decoder, expected: int) -> tuple[int, int]:
    """Return how many numbers the frames of a film take up, and how many of them can be decoded."""
    frames: Iterator[object] = _opencv_frames(path, expected) if decoder == "opencv" else _pyav_frames(path)
    end = decoded = 0
    for number, frame in enumerate(frames):
        if frame is not None:
            end, decoded = number + 1, decoded + 1
    return end, decoded


def _decode(path: str, decoder: Decoder, indices: Sequence[int], expected: int) -> Iterator[Frame]:
    """Yield the frames of ascending numbers, fewer where the film ends early; about `expected` frames are there."""
    return _decode_opencv(path, indices, expected) if decoder == "opencv" else _decode_pyav(path, indices)


def _pick(
    frames: Iterable[_Coded | None], indices: Sequence[int], convert: Callable[[_Coded], Frame | None]
) -> Iterator[Frame]:
    """Convert and yield the wanted frames, instead of a lost one the next; nothing for wanted ones behind the last."""
    left = deque(indices)
    if not left:
        return
    for number, coded in enumerate(frames):
        frame = convert(coded) if coded is not None and number >= left[0] else None
        while frame is not None and left and left[0] <= number:
            left.popleft()
            yield frame
        if not left:  # before another frame is decoded in vain
            return


def _decode_opencv(path: str, indices: Sequence[int], expected: int) -> Iterator[Frame]:
    """Step over the frames between with grab(), which decodes them but converts nothing."""
    try:
        yield from _pick(_opencv_frames(path, expected), indices, _retrieve)
    except cv2.error as err:
        raise MediaError(f"the film cannot be decoded: {err.err}") from err


def _retrieve(capture: "cv2.VideoCapture") -> Frame | None:
    found, frame = capture.retrieve()
    if not found or frame is None or frame.ndim != 3:
        return None
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


def _opencv_frames(path: str, expected: int) -> "Iterator[cv2.VideoCapture | None]":
    """Yield the capture whenever it has decoded a frame, None for every lost one (and behind the end).

    A hole of any length is passed over while fewer frames than expected went by.
    """
    capture = _open_capture(path)
    number = misses = 0
    try:
        while capture.isOpened() and (misses < _END_MISSES or number < expected):
            is_decoded = capture.grab()
            number, misses = number + 1, 0 if is_decoded else misses + 1
            yield capture if is_decoded else None
    finally:
        capture.release()


def _open_capture(path: str) -> "cv2.VideoCapture":
    """Open with FFmpeg only: other backends take a name for a pattern of file names, or for a camera."""
    # Failures become errors and notes of ours; OpenCV and the FFmpeg inside it would print them as well.
    cv2.utils.logging.setLogLevel(0)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    return cv2.VideoCapture(path, cv2.CAP_FFMPEG)


def _stated_frames(path: str) -> int:
    """Return the count of frames that the container claims or that follows from its duration."""
    capture = _open_capture(path)
    try:
        stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return int(stated) if math.isfinite(stated) else -1
    finally:
        capture.release()


def _decode_pyav(path: str, indices: Sequence[int]) -> Iterator[Frame]:
    """Convert only the frames that are wanted."""
    yield from _pick(_pyav_frames(path), indices, _upright)


def _upright(frame: "av.VideoFrame") -> Frame:
    # The container's rotation is counter-clockwise in degrees, as numpy's is.
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _pyav_frames(path: str) -> "Iterator[av.VideoFrame | None]":
    """Yield all decodable frames of the video track, None for a packet that is damaged, as OpenCV does."""
    try:
        with av.open(path, metadata_errors="ignore") as container:
            track = _video_track(container)
            track.thread_type = "AUTO"
            for packet in container.demux(track):
                try:
                    yield from packet.decode()
                except av.InvalidDataError:
                    yield None
    except (av.FFmpegError, ValueError):
        return  # the file ends in the middle; the caller sees how far it got


def _video_track(container: "av.container.InputContainer") -> "av.VideoStream":
    """Return the first video track that is no cover picture; MediaError if there is none."""
    for track in container.streams.video:
        if not track.disposition & av.stream.Disposition.attached_pic:
            return track
    raise MediaError("the file holds no video track", hint="pass it as audio if it holds sound")


def _read_packets(path: str) -> _Packets:
    """Read through a file without decoding: frames, their times, and whether its sound track holds anything."""
    try:
        with av.open(path, metadata_errors="ignore") as container:
            track = _video_track(container)
            sound = container.streams.audio[:1]
            num_frames, has_sound, is_suspect = 0, False, False
            first_s, last_s = math.inf, -math.inf
            for packet in container.demux(track, *sound):
                if packet.stream.type == "audio":
                    has_sound = has_sound or packet.size > 0
                elif packet.size and not packet.is_discard:
                    num_frames += 1
                    is_suspect = is_suspect or packet.is_corrupt or not any(memoryview(packet)[:_HEAD_BYTES])
                    if packet.pts is not None and packet.time_base:
                        time_s = float(packet.pts * packet.time_base)
                        first_s, last_s = min(first_s, time_s), max(last_s, time_s)
            stated = float(track.average_rate or track.guessed_rate or 0)
            duration_s = float(track.duration * track.time_base) if track.duration and track.time_base else 0.0
            if not duration_s and not sound:  # a container lasts as long as its longest track
                duration_s = (container.duration or 0) / av.time_base
            duration_s = max(duration_s, track.frames / stated if stated else 0.0)
    except (av.FFmpegError, OSError, ValueError) as err:
        raise MediaError(f"the film cannot be opened: {getattr(err, 'strerror', None) or err}") from err
    measured = (num_frames - 1) / (last_s - first_s) if num_frames > 1 and last_s > first_s else 0.0
    return _Packets(num_frames, duration_s, stated, measured, has_sound, is_suspect)
