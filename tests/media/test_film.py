"""Decoding films: every frame under its number, upright, counted as they come out of the decoder."""

import dataclasses
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mimo_cli.errors import MediaError
from mimo_cli.media import film as film_module
from mimo_cli.media.film import Decoder, Film, count_frames, open_film, read_frames
from tests.support.media_files import EXAMPLES, frame_number, numbered_frames, turn_mp4, write_film

WANTED = [0, 1, 5, 17, 39]
CONTAINERS = [
    ("a.mp4", "mpeg4"),
    ("a.mp4", "libx264"),
    ("a.mov", "mpeg4"),
    ("a.mkv", "ffv1"),
    ("a.webm", "libvpx"),
    ("a.avi", "mjpeg"),
    ("a.ts", "mpeg2video"),
    ("a.mpg", "mpeg2video"),
    ("a.flv", "flv1"),
]


def noisy_frames(count: int) -> list[np.ndarray]:
    """Frames that do not compress, so that a cut anywhere takes whole frames away."""
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_frames_come_under_their_numbers(name: str, codec: str, decoder: Decoder, tmp_path: Path) -> None:
    write_film(tmp_path / name, numbered_frames(40), 25, codec=codec)
    film = open_film(str(tmp_path / name))
    assert (film.decoder, film.num_frames, film.rate_fps, film.size_px) == ("opencv", 40, 25.0, (64, 48))
    film = dataclasses.replace(film, decoder=decoder)
    assert [frame_number(frame) for frame in read_frames(film, WANTED)] == WANTED
    assert count_frames(film.path, decoder) == 40


def test_both_decoders_give_the_same_pixels() -> None:
    film = open_film(str(EXAMPLES / "clip.mp4"))
    assert (film.num_frames, film.rate_fps, film.size_px, film.has_sound) == (132, 25.0, (480, 270), True)
    pairs = zip(
        read_frames(film, range(0, 132, 40)),
        read_frames(dataclasses.replace(film, decoder="pyav"), range(0, 132, 40)),
        strict=True,
    )
    # The same conversion of the same planes; another build of FFmpeg may round a level differently.
    assert max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs) <= 2


def test_frames_are_rgb_and_not_mirrored(tmp_path: Path) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 200, 0, 0
    write_film(tmp_path / "a.mp4", [frame] * 4)
    found = next(read_frames(open_film(str(tmp_path / "a.mp4")), [2]))
    assert np.abs(found[[5, 5, 40], [5, 60, 5]].astype(int) - [(200, 0, 0), (0, 0, 0), (0, 0, 0)]).max() < 10


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
@pytest.mark.parametrize(
    ("matrix", "size", "corner"),
    [((0, 1, -1, 0), (48, 64), (0, 1)), ((-1, 0, 0, -1), (64, 48), (1, 1)), ((0, -1, 1, 0), (48, 64), (1, 0))],
    ids=["clockwise", "upside-down", "counterclockwise"],
)
def test_rotation_of_the_container_is_applied_by_both_decoders(
    matrix: tuple, size: tuple, corner: tuple, decoder: Decoder, tmp_path: Path
) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 255  # white top left
    write_film(tmp_path / "a.mp4", [frame] * 4)
    turned = tmp_path / "b.mp4"
    turned.write_bytes(turn_mp4((tmp_path / "a.mp4").read_bytes(), matrix))
    film = dataclasses.replace(open_film(str(turned)), decoder=decoder)
    found = next(read_frames(film, [1]))
    assert film.size_px == size and found.shape == (size[1], size[0], 3)
    bright = {(row, column) for row in (0, 1) for column in (0, 1) if found[-5 * row + 2, -5 * column + 2].mean() > 128}
    assert bright == {corner}


@pytest.mark.parametrize(("name", "codec"), [(n, c) for n, c in CONTAINERS if n not in ("a.mpg", "a.flv")])
@pytest.mark.parametrize("share", [0.9, 0.5])
def test_a_film_cut_short_counts_the_frames_that_are_there(name: str, codec: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / name
    write_film(path, noisy_frames(40), codec=codec)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    film = open_film(str(path))
    assert 40 * (share - 0.1) <= film.num_frames < 40
    assert len(list(read_frames(film, range(film.num_frames)))) == film.num_frames
    if share == 0.5 and name != "a.ts":  # a transport stream states no length
        assert "cut short or damaged: 4.0 s promised" in film.notes[0]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_varying_rate_gives_the_average_over_the_film(name: str, tmp_path: Path) -> None:
    times = [*range(10), *range(10, 110, 10)]  # ten frames in a second, ten more in ten seconds
    write_film(tmp_path / name, numbered_frames(20), pts=times)
    film = open_film(str(tmp_path / name))
    assert film.num_frames == 20
    assert film.rate_fps == pytest.approx(20 / 11, rel=0.12)  # the last frame's duration may count or not


def test_a_fractional_rate_is_kept(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", numbered_frames(12), Fraction(24000, 1001))
    assert open_film(str(tmp_path / "a.mp4")).rate_fps == 24000 / 1001


def test_an_empty_sound_track_is_none(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", numbered_frames(4), sound_s=0.5)
    write_film(tmp_path / "b.mp4", numbered_frames(4))
    assert open_film(str(tmp_path / "a.mp4")).has_sound
    assert not open_film(str(tmp_path / "b.mp4")).has_sound


def test_pyav_decodes_what_opencv_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, numbered_frames(20))
    monkeypatch.setattr(film_module, "_decode_opencv", lambda *_: iter(()))
    film = open_film(str(path))
    assert (film.decoder, film.num_frames) == ("pyav", 20)
    assert [frame_number(frame) for frame in read_frames(film, [3, 19])] == [3, 19]


def test_a_film_that_ends_before_its_promise_is_an_error_that_names_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, numbered_frames(20))
    film = dataclasses.replace(open_film(str(path)), num_frames=30)
    for decoder in ("opencv", "pyav"):
        with pytest.raises(MediaError, match="frame 25 of 30 cannot be decoded"):
            list(read_frames(dataclasses.replace(film, decoder=decoder), [0, 19, 25]))


def zero_packets(path: Path, numbers: Iterable[int]) -> None:
    """Overwrite some packets of a film with zeros, as a download leaves them that was never completed."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for number in numbers:
        start, size = places[number]
        data[start : start + size] = bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
@pytest.mark.parametrize("lost", [[8], [0], [39], [8, 9, 10, 38, 39]], ids=str)
def test_a_damaged_packet_costs_its_own_frame_only(lost: list[int], decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, numbered_frames(40))
    zero_packets(path, lost)
    film = open_film(str(path))
    assert film.notes == (f"the film is damaged: {len(lost)} of 40 frames cannot be decoded",)
    # One in the middle keeps its number, the next one stands in for it; a lost end is not counted.
    kept = [number for number in range(40) if number not in lost]
    assert film.num_frames == count_frames(film.path, decoder) == kept[-1] + 1
    film = dataclasses.replace(film, decoder=decoder, num_frames=40)
    expected = [min((k for k in kept if k >= number), default=kept[-1]) for number in range(40)]
    assert [frame_number(frame) for frame in read_frames(film, range(40))] == expected


def test_a_hole_longer_than_any_patience_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, (frame for _ in range(4) for frame in numbered_frames(40)))
    zero_packets(path, range(20, 140))
    film = open_film(str(path))
    assert film.num_frames == 160 and "120 of 160 frames" in film.notes[0]
    assert [frame_number(frame) for frame in read_frames(film, [19, 20, 139, 159])] == [19, 20, 20, 39]


def test_a_long_end_that_cannot_be_decoded_is_not_made_of_copies(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, (frame for _ in range(3) for frame in numbered_frames(40)))
    film = open_film(str(path))
    zero_packets(path, range(50, 120))  # behind its back: a film opened like this ends at frame 49
    with pytest.raises(MediaError, match="frame 51 of 120 cannot be decoded"):
        list(read_frames(film, [0, 51, 119]))
    assert open_film(str(path)).num_frames == 50


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_a_damaged_packet_of_a_codec_that_reorders_frames_leaves_the_film_whole(
    decoder: Decoder, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, noisy_frames(60), codec="libx264")
    zero_packets(path, [8])
    film = dataclasses.replace(open_film(str(path)), decoder=decoder)
    assert film.num_frames == 60 and film.notes == ("the film is damaged: 1 of 60 frames cannot be decoded",)
    assert len(list(read_frames(film, range(60)))) == 60


def test_sound_alone_is_no_film(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", [], sound_s=0.5)
    with pytest.raises(MediaError, match="no video track") as caught:
        open_film(str(tmp_path / "a.mp4"))
    assert "audio" in (caught.value.hint or "")


@pytest.mark.parametrize("size", [0, 10, 3000])
def test_garbage_is_a_clear_error(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(size))
    with pytest.raises(MediaError, match="cannot be opened"):
        open_film(str(path))


def test_a_film_whose_index_is_missing_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, noisy_frames(10))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") + 50])
    with pytest.raises(MediaError, match=r"cannot be opened|no video track"):
        open_film(str(path))


@pytest.mark.parametrize("seed", range(12))
def test_damaged_films_give_frames_or_a_media_error(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, noisy_frames(12), sound_s=0.3)
    damage = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    places = damage.integers(0, 3000 if seed % 2 else len(data), 20)  # in the index, or anywhere
    for place in places:
        data[place] = damage.integers(0, 256)
    path.write_bytes(bytes(data))
    try:
        film = open_film(str(path))
        assert isinstance(film, Film)
        for frame in read_frames(film, range(film.num_frames)):
            assert frame.dtype == np.uint8 and frame.ndim == 3
    except MediaError as err:
        assert str(err)


def test_decoders_print_nothing_of_their_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mp4"
    write_film(path, noisy_frames(20))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    film = open_film(str(path))
    list(read_frames(film, range(film.num_frames)))
    assert capfd.readouterr() == ("", "")
