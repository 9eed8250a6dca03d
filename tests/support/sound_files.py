"""Small sound files made on the spot: by libsndfile, by FFmpeg through PyAV, and damaged by hand."""

import io
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Sound = NDArray[np.float32]


def noise(length: int, channels: int = 1, *, level: float = 0.5, seed: int = 0) -> Sound:
    """Uniform noise [length, channels]."""
    return np.random.default_rng(seed).uniform(-level, level, (length, channels)).astype(np.float32)


def voice(seconds: float, rate: int = 24_000, *, level: float = 0.3) -> Sound:
    """Something that swells and fades four times a second, as syllables do: mono [N]."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * 220 * time) * (0.55 - 0.45 * np.cos(8 * np.pi * time))).astype(np.float32)


def encode(samples: Sound, rate: int, kind: str = "WAV", subtype: str | None = None, **options: Any) -> bytes:
    """Write [N] or [N, channels] with libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype, **options)
    return file.getvalue()


def encode_container(samples: Sound, rate: int, kind: str, codec: str, *, picture: bool = False) -> bytes:
    """Write [N] or [N, 2] with FFmpeg as the sound track of a container; `picture` adds a small film.

    MP4 files get their index first, so that one cut short can still be opened.
    """
    samples = samples[:, None] if samples.ndim == 1 else samples
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    options = {"movflags": "faststart"} if kind in ("mp4", "mov") else {}
    with tempfile.NamedTemporaryFile() as file, av.open(file.name, "w", format=kind, options=options) as container:
        film = container.add_stream("mpeg4", rate=10) if picture else None
        track = container.add_stream(codec, rate=rate, layout=layout)
        if film:
            film.width = film.height = 32
            film.pix_fmt = "yuv420p"
            for _ in range(max(1, 10 * len(samples) // rate)):
                container.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
            container.mux(film.encode())
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate = rate
        converter = av.AudioResampler(format=track.format, layout=layout, rate=rate)
        for converted in [*converter.resample(frame), *converter.resample(None)] if len(samples) else []:
            container.mux(track.encode(converted))
        container.mux(track.encode())
        container.close()
        return Path(file.name).read_bytes()


def film_without_sound() -> bytes:
    """A short MP4 that holds pictures only."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        film = container.add_stream("mpeg4", rate=10)
        film.width = film.height = 32
        film.pix_fmt = "yuv420p"
        container.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(film.encode())
    return file.getvalue()


def patched(data: bytes, offset: int, replacement: bytes) -> bytes:
    """Overwrite some bytes of a file."""
    return data[:offset] + replacement + data[offset + len(replacement) :]
