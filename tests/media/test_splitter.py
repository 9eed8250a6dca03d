"""Clips for transcription: where cuts go, what is left out, times, and bounds."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_cli.errors import MediaError, UsageError
from mimo_cli.media.audio import AudioOptions, Recording, open_recording
from mimo_cli.media.samples import SoundStream
from mimo_cli.media.splitter import SplitOptions, split_recording
from tests.support import audio_golden as golden
from tests.support.sound_files import encode, voice

RATE = 24_000


def recording_of(samples, block=50_000):
    """A recording whose samples arrive in blocks, without a file."""
    samples = np.asarray(samples, np.float32)
    blocks = [samples[start : start + block, None] for start in range(0, len(samples), block)]
    return Recording(
        SoundStream("talk", RATE, 1, len(samples), False, lambda: iter(blocks)),
        AudioOptions(),
        len(samples),
        len(samples),
        (),
    )


def silence(seconds):
    return np.zeros(round(seconds * RATE), np.float32)


def hum(seconds, level=0.3):
    """Sound of one loudness, with nothing quiet in it."""
    return (level * np.sin(np.arange(round(seconds * RATE)) * 0.2)).astype(np.float32)


def times(samples, **options):
    clips = split_recording(recording_of(np.concatenate(samples)), SplitOptions(**options))
    return [(round(clip.start_s, 2), round(clip.end_s, 2)) for clip in clips]


def test_a_short_recording_is_one_clip():
    assert times([voice(12)]) == [(0, 12)]


def test_a_cut_goes_to_the_quietest_place_of_the_second_half():
    # Two gaps of 300 ms, one in each half of the span: the later one is taken, in its middle.
    assert times([hum(10), silence(0.3), hum(12), silence(0.3), hum(12)], chunk_s=30)[0] == (0, 22.45)


def test_a_gap_that_is_only_quieter_is_taken_too():
    cut = times([hum(20), hum(0.3, level=0.05), hum(20)])[0][1]
    assert 20.05 <= cut <= 20.25


def test_without_a_gap_no_clip_is_longer_than_asked():
    clips = times([hum(100)], chunk_s=20)
    assert all(10 <= end - start <= 20 for start, end in clips[:-1])
    assert clips[-1][1] == 100


def test_clips_join_without_a_gap_or_an_overlap():
    clips = times([voice(200)], chunk_s=15)
    assert clips[0][0] == 0
    assert clips[-1][1] == 200
    assert all(one[1] == two[0] for one, two in pairwise(clips))


@pytest.mark.parametrize("length", [30.0, 30.01, 30.5, 30.99, 31.0, 31.01])
def test_the_last_clip_is_at_least_a_second_long(length):
    clips = times([hum(length)])
    assert clips[-1][1] - clips[-1][0] >= 1.0
    assert clips[-1][1] == pytest.approx(length, abs=0.01)


def test_stretches_of_silence_are_left_out_but_for_a_margin():
    clips = times([silence(5), hum(6), silence(4), hum(3), silence(10)])
    assert clips == [(4.61, 11.4), (14.61, 18.4)]


def test_pauses_between_sentences_are_kept():
    assert times([hum(4), silence(1.5), hum(4)]) == [(0, 9.5)]


def test_silence_alone_gives_no_clip_and_is_kept_on_request():
    assert times([silence(90)]) == []
    assert len(times([silence(90)], skip_silence=False)) >= 3


def test_faint_speech_is_not_taken_for_silence():
    # 34 dB below the loud part; noise 54 dB below it is left out.
    assert times([hum(5, 0.5), hum(5, 0.01)]) == [(0, 10)]
    assert times([hum(5, 0.5), hum(5, 0.001)]) == [(0, 5.4)]


def test_a_faint_recording_is_heard_by_its_own_measure():
    assert times([hum(5, 0.002), silence(4), hum(5, 0.002)]) == [(0, 5.4), (8.62, 14)]


def test_a_click_does_not_make_speech_silent():
    click = np.ones(240, np.float32)
    assert times([click, hum(10, 0.003)]) == [(0, 10.01)]


def test_a_word_after_long_silence_lasts_at_least_a_second_with_its_surroundings():
    (clip,) = times([silence(10), hum(0.2), silence(10)])
    assert clip[1] - clip[0] >= 0.8
    assert clip[0] < 10 < 10.2 < clip[1]


def test_samples_of_a_clip_are_those_of_its_time():
    samples = voice(70)
    for clip in split_recording(recording_of(samples), SplitOptions(chunk_s=20)):
        (heard,) = clip.audio.read_segments.args[0]()
        start = round(clip.start_s * RATE)
        assert np.array_equal(heard, samples[start : start + len(heard)])
        assert clip.audio.num_samples_24k == len(heard)
        rows = sum(len(segment) for segment in clip.audio.segments())
        assert clip.audio.num_tokens == -(-rows // 16)


def test_an_overlap_is_heard_again_and_does_not_move_times():
    samples = hum(70)
    plain = list(split_recording(recording_of(samples), SplitOptions(chunk_s=20)))
    overlapped = list(split_recording(recording_of(samples), SplitOptions(chunk_s=20, overlap_s=1)))
    assert [clip.start_s for clip in plain] == [clip.start_s for clip in overlapped]
    extra = [b.audio.num_samples_24k - a.audio.num_samples_24k for a, b in zip(plain, overlapped, strict=True)]
    assert extra == [0] + [RATE] * (len(plain) - 1)


def test_an_overlap_does_not_reach_over_silence():
    samples = np.concatenate([hum(10), silence(5), hum(10)])
    clips = split_recording(recording_of(samples), SplitOptions(overlap_s=1))
    assert [clip.audio.num_samples_24k / RATE for clip in clips] == pytest.approx([10.39, 10.39], abs=0.02)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, (0, 20)),
        (5, None, (5, 20)),
        (5, 8, (5, 8)),
        (0, 99, (0, 20)),
        (19.5, None, (19.5, 20)),
        (0, 0.5, (0, 0.5)),
    ],
)
def test_a_part_can_be_chosen_by_time(start, end, expected):
    assert times([hum(20)], start_s=start, end_s=end) == [expected]


def test_reading_stops_at_the_end_that_was_asked_for():
    read = []

    def blocks():
        for index in range(100):
            read.append(index)
            yield hum(1)[:, None]

    recording = Recording(
        SoundStream("talk", RATE, 1, 100 * RATE, False, blocks), AudioOptions(), 100 * RATE, 100 * RATE, ()
    )
    assert len(list(split_recording(recording, SplitOptions(end_s=10)))) == 1
    assert len(read) <= 11


def test_a_start_behind_the_end_is_refused():
    with pytest.raises(MediaError, match=r"talk ends at 5\.00 s, before 6 s"):
        times([hum(5)], start_s=6)


@pytest.mark.parametrize(
    "bad",
    [
        {"chunk_s": 61},
        {"chunk_s": 1.5},
        {"chunk_s": 60, "overlap_s": 1},
        {"overlap_s": -1},
        {"chunk_s": 10, "overlap_s": 6},
        {"start_s": 3, "end_s": 3},
        {"start_s": -1},
        {"chunk_s": float("nan")},
    ],
)
def test_impossible_wishes_are_refused(bad):
    with pytest.raises(UsageError):
        SplitOptions(**bad)


def test_clips_are_given_out_while_the_recording_is_read():
    read = []

    def blocks():
        for index in range(600):
            read.append(index)
            yield voice(1)[:, None]

    recording = Recording(
        SoundStream("talk", RATE, 1, 600 * RATE, False, blocks), AudioOptions(), 600 * RATE, 600 * RATE, ()
    )
    clips = split_recording(recording)
    next(clips)
    assert len(read) <= 32


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.05, 12)), min_size=1, max_size=8), st.integers(20_000, 200_000))
def test_clips_are_ordered_bounded_and_cover_everything_loud(parts, block):
    samples = np.concatenate([hum(length) if is_loud else silence(length) for is_loud, length in parts])
    clips = list(split_recording(recording_of(samples, block), SplitOptions(chunk_s=10)))
    edges = [edge for clip in clips for edge in (clip.start_s, clip.end_s)]
    assert edges == sorted(edges)
    assert all(clip.end_s - clip.start_s <= 10.0 + 1e-9 for clip in clips)
    covered = np.zeros(len(samples), bool)
    for clip in clips:
        covered[round(clip.start_s * RATE) : round(clip.end_s * RATE)] = True
    assert not (np.abs(samples) > 0.01)[~covered].any()


@settings(max_examples=20)
@given(st.integers(20_000, 300_000))
def test_cuts_do_not_depend_on_how_the_stream_arrives(block):
    # What comes later is louder: a decision that looked ahead would find silence where there was none.
    samples = np.concatenate([hum(9, 0.002), hum(3, 0.0004), hum(9, 0.002), hum(20, 0.5), silence(3), voice(15)])
    edges = [clip.end_s for clip in split_recording(recording_of(samples, block), SplitOptions(chunk_s=10))]
    assert edges == [clip.end_s for clip in split_recording(recording_of(samples), SplitOptions(chunk_s=10))]


def test_a_recording_from_a_file_is_cut_at_its_pauses():
    clips = list(split_recording(open_recording(golden.path("c05"))))
    assert [clip.end_s for clip in clips][-1] == pytest.approx(61.32)
    assert all(clip.end_s - clip.start_s <= 30 for clip in clips)
    assert sum(clip.audio.num_samples_24k for clip in clips) == golden.CLIPS["c05"]["samples_24k"]


def test_names_of_clips_say_where_they_are():
    (clip,) = split_recording(open_recording(encode(voice(3), RATE), name="talk.wav"))
    assert clip.audio.source == "talk.wav from 0.00 s to 3.00 s"
