"""Films to pixel values: against the reference, and chunk by chunk from files."""

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mimo_cli.errors import MediaError
from mimo_cli.media import film as film_module
from mimo_cli.media import video as video_module
from mimo_cli.media.audio import open_audio
from mimo_cli.media.options import VideoOptions
from mimo_cli.media.sampling import frame_times_s
from mimo_cli.media.types import MAX_CHUNK_STEPS, VideoInput
from mimo_cli.media.video import open_video, preprocess_frames, preprocess_video
from tests.support.media_files import EXAMPLES, numbered_frames, write_film
from tests.support.vision_golden import expected

TOLERANCE = 3e-5  # as for pictures: two implementations differ by 6.8e-6


def whole(video: VideoInput) -> np.ndarray:
    return np.concatenate([pixel_values for pixel_values, _ in video.chunks()])


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A film of 4 s with 10 frames a second and a tone of 4 s."""
    path = tmp_path / "film.mp4"
    write_film(path, numbered_frames(40), sound_s=4.0)
    return path


def test_the_reference_film_gives_the_reference_pixel_values() -> None:
    found, grid, times = preprocess_video(expected()["vid_frames"], float(expected()["vid_fps"]))
    assert np.abs(found - expected()["vid_pixel_values"]).max() < TOLERANCE and found.dtype == np.float32
    assert np.array_equal(grid, expected()["video_grid_thw"])
    assert np.array_equal(times, expected()["vid_timestamps"]) and times.dtype == np.float32


def test_an_odd_number_of_given_frames_repeats_the_last() -> None:
    indices = expected()["vid_indices"][:3]
    times = frame_times_s(indices, float(expected()["vid_fps"]))
    found, grid, padded = preprocess_frames(expected()["vid_frames"][indices], times, VideoOptions())
    assert np.array_equal(grid, expected()["vid3_grid_thw"]) and np.array_equal(padded, expected()["vid3_timestamps"])
    assert np.abs(found[:48] - expected()["vid_pixel_values"][:48]).max() < TOLERANCE
    last = found[48:].reshape(-1, 3, 2, 256)
    assert np.array_equal(last[:, :, 0], last[:, :, 1])


def test_one_changed_pixel_of_a_sampled_frame_changes_the_pixel_values() -> None:
    frames = expected()["vid_frames"].copy()
    frames[expected()["vid_indices"][4], 50, 60, 0] ^= 32
    changed = (preprocess_video(frames, 5.0)[0] != preprocess_video(expected()["vid_frames"], 5.0)[0]).any(1)
    assert changed.any() and not changed[:96].any()  # frame 4 belongs to step 2 of 48 patches each


def test_a_real_film_opens_with_its_sound() -> None:
    video = open_video(EXAMPLES / "clip.mp4")
    assert (video.size_px, video.grid_thw, video.step_tokens, video.num_tokens) == ((480, 270), (4, 16, 30), 120, 480)
    assert video.timestamps_s.tolist() == [np.float32(i) / np.float32(25) for i in (0, 37, 74, 112)]
    assert video.timestamps_s.dtype == np.float32 and float(video.segment_end_s) == pytest.approx(5.96)
    assert video.audio is not None and video.audio.num_tokens == 34  # 5.3 s at 6.25 a second
    chunks = list(video.chunks())
    assert [grid.tolist() for _, grid in chunks] == [[[4, 16, 30]]]
    assert chunks[0][0].shape == (4 * 16 * 30, 1536)
    assert video.notes == ()


def test_a_file_equals_its_frames(film: Path) -> None:
    video = open_video(film)
    decoded = film_module.read_frames(film_module.open_film(str(film)), range(40))
    found, grid, times = preprocess_video(np.stack(list(decoded)), 10.0)
    assert np.array_equal(whole(video), found) and grid.tolist() == [list(video.grid_thw)]
    assert np.array_equal(video.timestamps_s, times[::2])


def test_chunks_can_be_read_again_and_bytes_equal_a_file(film: Path) -> None:
    video = open_video(film)
    assert np.array_equal(whole(video), whole(video))
    assert np.array_equal(whole(open_video(film.read_bytes())), whole(video))


def test_the_temporary_copy_lives_as_long_as_the_film(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    video = open_video(film.read_bytes())
    assert len(list(folder.iterdir())) == 1 and video.source == "standard input"
    chunks = video.chunks()
    next(chunks)
    del video, chunks
    gc.collect()
    assert not list(folder.iterdir())


def test_a_failed_film_leaves_no_temporary_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(MediaError, match="standard input: the film cannot be opened"):
        open_video(b"\0\0\0\x18ftypisom" + bytes(1000))
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [1, 2 * 6 * 8 * 6144, 1 << 30])
def test_chunks_do_not_change_the_pixel_values(film: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = whole(open_video(film, VideoOptions(fps=10.0)))
    monkeypatch.setattr(video_module, "MAX_CHUNK_BYTES", limit)
    video = open_video(film, VideoOptions(fps=10.0))
    sizes = [int(grid[0, 0]) for _, grid in video.chunks()]
    assert sum(sizes) == 20 and max(sizes) == {1: 1, 1 << 30: MAX_CHUNK_STEPS}.get(limit, 2)
    assert np.array_equal(whole(video), reference)


def test_at_most_eight_steps_are_alive_at_once(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", (np.full((240, 320, 3), 3 * i, np.uint8) for i in range(80)))
    video = open_video(tmp_path / "a.mp4", VideoOptions(fps=10.0))
    step_bytes = video.step_tokens * 4 * 6144
    tracemalloc.start()
    try:
        for pixel_values, _ in video.chunks():  # the last chunk is still held while the next one is made
            assert pixel_values.nbytes <= MAX_CHUNK_STEPS * step_bytes
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert video.grid_thw[0] == 40
    assert peak_bytes < (2 * MAX_CHUNK_STEPS + 2) * step_bytes  # two chunks, one resized frame and its source


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 4),
        ({"fps": 2.0}, 4),
        ({"fps": 5.0}, 10),
        ({"max_frames": 5}, 2),
        ({"min_frames": 17}, 9),
        ({"fps": 99.0}, 20),
    ],
)
def test_sampling_options_decide_the_number_of_steps(film: Path, options: dict, steps: int) -> None:
    assert open_video(film, VideoOptions(**options)).grid_thw[0] == steps


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({}, (6, 8)),
        ({"max_pixels": 5000, "min_pixels": 1024}, (4, 4)),
        ({"total_max_pixels": 4 * 32768}, (10, 12)),
        ({"total_max_pixels": 4 * 32768, "min_pixels": 32768}, (10, 14)),
        ({"min_pixels": 32768}, (10, 14)),
    ],
)
def test_pixel_options_decide_the_frame_size(film: Path, options: dict, grid: tuple[int, int]) -> None:
    options = {"min_pixels": 24000, **options} if "total_max_pixels" in options and len(options) == 1 else options
    assert open_video(film, VideoOptions(**options)).grid_thw[1:] == grid


def test_sound_is_opened_only_when_wanted_and_there(film: Path, tmp_path: Path) -> None:
    assert open_video(film).audio is not None
    assert open_video(film, VideoOptions(use_audio=False)).audio is None
    write_film(tmp_path / "silent.mp4", numbered_frames(10))
    assert open_video(tmp_path / "silent.mp4").audio is None


@pytest.mark.parametrize("damage", ["cut", "unknown codec"])
def test_a_film_whose_sound_cannot_be_read_keeps_its_pictures(damage: str, film: Path) -> None:
    data = film.read_bytes()
    if damage == "cut":
        data = data[: int(len(data) * 0.7)]
    else:  # what names AAC in the index is made to name nothing that FFmpeg knows
        place = data.index(b"mp4a")
        data = data[:place] + data[place:].replace(b"mp4a", b"zzzz", 1).replace(b"esds", b"free", 1)
    film.write_bytes(data)
    video = open_video(film)
    assert video.audio is None
    assert video.notes[-1].startswith(f"its sound track is left out: {film}")
    assert len(whole(video)) == np.prod(video.grid_thw)
    with pytest.raises(MediaError):
        open_audio(film)


def test_a_film_of_one_frame_is_refused(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", numbered_frames(1))
    with pytest.raises(MediaError, match=r"a\.mp4: a film needs at least 2 frames") as caught:
        open_video(tmp_path / "a.mp4")
    assert "image" in (caught.value.hint or "")


def test_a_film_cut_short_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0)
    write_film(path, (noise.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(40)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = open_video(path)
    assert "cut short or damaged" in video.notes[0]
    assert len(whole(video)) == np.prod(video.grid_thw)
    assert float(video.segment_end_s) < 3.0


def test_a_damaged_film_fails_while_it_is_read_not_silently(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = open_video(film)
    film.write_bytes(film.read_bytes()[:2000])
    with pytest.raises(MediaError, match="cannot be decoded"):
        whole(video)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"text", "no known format"),
        (b"fLaC" + bytes(50), "those of flac"),
        (b"%PDF-1.7", "a PDF document"),
    ],
)
def test_anything_but_a_film_is_an_error_that_names_the_source(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=rf"film\.mp4.*{message}"):
        open_video(path)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="does not exist"):
        open_video(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    "array", [np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3)), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_arrays_that_are_no_films_are_refused(array: np.ndarray) -> None:
    with pytest.raises(MediaError, match=r"\[F, H, W, 3\] of uint8"):
        preprocess_video(array, 25.0)
