"""Long media at full size through the miniature's towers: what is alive does not grow with their length."""

from collections.abc import Iterator

import numpy as np
import pytest

from mimo_cli.engine.memory import peak_rss_bytes, reset_peak_rss
from mimo_cli.media.types import AudioInput, VideoInput
from tests.support.engines import miniature_engine

LIMIT_BYTES = 1.5e9
"""What decoding and encoding may take beyond the rows; 0.25 GB for the film and 0.1 GB for the recording are seen."""

STEPS, ROWS, COLUMNS = 300, 44, 78  # ten minutes of 1920x1080 at one frame a second, in temporal steps and patches
SEGMENTS = 120  # two hours


def ten_minutes() -> VideoInput:
    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        noise = np.random.default_rng(0)
        for _ in range(STEPS // 5):
            yield noise.standard_normal((5 * ROWS * COLUMNS, 1536), dtype=np.float32), np.array([[5, ROWS, COLUMNS]])

    times_s, tokens = np.arange(0, 2 * STEPS, 2, dtype=np.float32), ROWS * COLUMNS // 4
    return VideoInput("film", (1920, 1080), (STEPS, ROWS, COLUMNS), times_s, np.float32(2 * STEPS), tokens, chunks)


def two_hours() -> AudioInput:
    def segments() -> Iterator[np.ndarray]:
        noise = np.random.default_rng(0)
        for _ in range(SEGMENTS):
            yield noise.standard_normal((6000, 128), dtype=np.float32)

    return AudioInput("talk", SEGMENTS * 1_440_000, SEGMENTS * 375, segments)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("item", "stream"), [(ten_minutes(), "vision"), (two_hours(), "audio")])
def test_memory_beyond_the_rows_stays_bounded(item: VideoInput | AudioInput, stream: str) -> None:
    media = miniature_engine().media
    if not reset_peak_rss():
        pytest.skip("this system cannot measure a peak anew")
    before = peak_rss_bytes()
    rows = media.rows(item, stream)
    assert len(rows) == item.num_tokens
    assert peak_rss_bytes() - before - rows.nbytes < LIMIT_BYTES
