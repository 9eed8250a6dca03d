"""Small media made on the spot: pictures by OpenCV, films by PyAV, header bytes by hand."""

import io
import struct
import zlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"


def smooth_picture(height: int = 80, width: int = 112, seed: int = 0) -> np.ndarray:
    """A colourful picture without hard edges, uint8 RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encode_picture(rgb: np.ndarray, extension: str, *parameters: int) -> bytes:
    """Encode RGB, RGBA or grey samples with OpenCV."""
    conversions = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    samples = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, conversions[rgb.shape[2]])
    return cv2.imencode(extension, samples, list(parameters))[1].tobytes()


def exif_bytes(orientation: int, order: str = "<") -> bytes:
    """The smallest EXIF data that states an orientation."""
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return head + struct.pack(order + "HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


def jpeg_with_exif(jpeg: bytes, exif: bytes) -> bytes:
    """Put EXIF data behind the start of a JPEG file."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + jpeg[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    """The start of an 8-bit RGB PNG file of that size, without pixels."""
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def numbered_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Grey frames, 48 at most, whose level tells their number: 10, 15, 20, ... (codecs move it by less than 2)."""
    return [np.full((height, width, 3), 10 + 5 * number, np.uint8) for number in range(count)]


def frame_number(frame: np.ndarray) -> int:
    """Read the number of a frame of `numbered_frames`."""
    return round((float(frame.mean()) - 10) / 5)


def write_film(
    target: Path | io.BytesIO,
    frames: Iterable[np.ndarray],
    rate: int | Fraction = 10,
    *,
    codec: str = "mpeg4",
    container: str | None = None,
    pts: Iterable[int] | None = None,
    sound_s: float = 0.0,
) -> None:
    """Write RGB frames as a film; pts in units of 1/rate make the rate vary, sound_s adds a tone of that length.

    MP4 files get their index first, so that one cut short can still be opened.
    """
    file = target if isinstance(target, io.BytesIO) else str(target)
    is_mp4 = str(target).endswith((".mp4", ".mov"))
    with av.open(file, "w", format=container, options={"movflags": "faststart"} if is_mp4 else {}) as output:
        track, times = None, iter(pts) if pts is not None else None
        sound = output.add_stream("aac", rate=24000, layout="mono") if sound_s else None
        for number, frame in enumerate(frames):
            if track is None:
                track = output.add_stream(codec, rate=rate)
                track.height, track.width = frame.shape[:2]
                track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                track.bit_rate = 4_000_000
                track.codec_context.time_base = Fraction(1, 1) / rate
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = next(times) if times else number, Fraction(1, 1) / rate
            output.mux(track.encode(picture))
        if track is not None:
            output.mux(track.encode())
        if sound is not None:
            _write_tone(output, sound, sound_s)


def turn_mp4(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """Write the four corner entries (a, b, c, d) of the display matrix into every track header of an MP4 file."""
    turned, start = bytearray(data), 0
    while (start := data.find(b"tkhd", start)) >= 0:
        place = start + 4 + (40 if data[start + 4] == 0 else 52)
        a, b, c, d = (value << 16 for value in matrix)
        struct.pack_into(">9i", turned, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
        start += 4
    return bytes(turned)


def _write_tone(output: av.container.OutputContainer, track: av.AudioStream, length_s: float) -> None:
    """Add a tone of 440 Hz."""
    samples = np.sin(np.arange(round(length_s * 24000)) * (2 * np.pi * 440 / 24000)).astype(np.float32) * 0.3
    for start in range(0, len(samples), 1024):
        block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = 24000, start, Fraction(1, 24000)
        output.mux(track.encode(block))
    output.mux(track.encode())
