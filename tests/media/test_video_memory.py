"""A long film in bounded memory, measured as a person would: the peak of a process of its own."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

MEASURE = """
import resource, sys
from pathlib import Path
from mimo_cli.media.video import open_video

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak_bytes()
video = open_video(Path(sys.argv[1]))
rows = sum(len(pixel_values) // 4 for pixel_values, _ in video.chunks())
print(video.grid_thw[0], rows, video.num_tokens, before, peak_bytes())
"""


@pytest.mark.slow
def test_ten_minutes_of_1080p_stay_under_a_gigabyte_and_a_half(tmp_path: Path) -> None:
    path = tmp_path / "long.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 2.0, (1920, 1080))
    frame = np.random.default_rng(0).integers(0, 256, (1080 // 8, 1920 // 8, 3), dtype=np.uint8)
    frame = cv2.resize(frame, (1920, 1080))
    for number in range(1200):
        writer.write(np.roll(frame, number * 3, axis=1))
    writer.release()
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True, timeout=900
    ).stdout
    steps, rows, tokens, before, peak = map(int, output.split())
    print(f"peak {peak / 1e6:.0f} MB, of which {before / 1e6:.0f} MB before the film was opened")
    assert (steps, tokens) == (300, 257_400) and rows == tokens  # the table of the vision specification, 10 minutes
    assert peak < 1_500_000_000
