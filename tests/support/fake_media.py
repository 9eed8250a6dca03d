"""Media inputs of chosen sizes without files, for tests that only count rows."""

import numpy as np

from mimo_cli.media.types import AudioInput, ImageInput, VideoInput


def fake_image(num_tokens: int = 4, source: str = "cat.png") -> ImageInput:
    """Return a picture of 2 x 2 patches a token; reading it yields nothing."""
    return ImageInput(source, (32, 32), (1, 2, 2 * num_tokens), num_tokens, lambda: iter(()))


def fake_audio(num_tokens: int = 3, source: str = "talk.wav") -> AudioInput:
    """Return a recording."""
    return AudioInput(source, num_tokens * 3840, num_tokens, lambda: iter(()))


def fake_video(
    times_s: tuple[float, ...] = (0.0, 2.0), step_tokens: int = 2, audio: AudioInput | None = None
) -> VideoInput:
    """Return a film whose steps begin at these times; the last one lasts as long as the first."""
    times = np.array(times_s, np.float32)
    step_s = times[1] - times[0] if len(times) > 1 else np.float32(1)
    return VideoInput(
        source="clip.mp4",
        size_px=(32, 32),
        grid_thw=(len(times), 2, 2 * step_tokens),
        timestamps_s=times,
        segment_end_s=np.float32(times[-1] + step_s),
        step_tokens=step_tokens,
        read_chunks=lambda: iter(()),
        audio=audio,
    )
