from dataclasses import replace

import pytest

from mimo_cli.chat.messages import AudioPart, ImagePart, VideoPart
from mimo_cli.chat.placeholders import MediaIds, MediaQueue, PromptWriter
from mimo_cli.errors import UsageError
from mimo_cli.media.prompt import Prompt, Span
from tests.support.chat_golden import subset_tokenizer
from tests.support.fake_media import fake_audio, fake_image, fake_video
from tests.support.tiny_tokenizer import processor_for

TOKENIZER = subset_tokenizer()
PROCESSOR = processor_for(TOKENIZER)
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = 151652, 151653, 151655, 151656
AUDIO_PAD, VIDEO_START, VIDEO_END, AUDIO_START, AUDIO_END = 151669, 151670, 151671, 151673, 151674


def written(part: ImagePart | VideoPart | AudioPart, processor=PROCESSOR) -> Prompt:
    writer = PromptWriter(TOKENIZER, processor)
    writer.write_media(part)
    return writer.prompt()


def label(text: str) -> tuple[int, ...]:
    """One id a digit, 15 to 24, and 25 for the colon: the release's numbers."""
    return tuple(25 if letter == ":" else 15 + int(letter) for letter in text)


def test_a_picture_is_a_run_between_its_markers() -> None:
    prompt = written(ImagePart(fake_image(3)))
    assert prompt.ids == (VISION_START, *[IMAGE_PAD] * 3, VISION_END)
    assert prompt.spans == (Span(1, 3, 0, "vision", 0),)


def test_a_recording_is_a_run_between_its_own_markers() -> None:
    prompt = written(AudioPart(fake_audio(2)))
    assert prompt.ids == (AUDIO_START, AUDIO_PAD, AUDIO_PAD, AUDIO_END)
    assert prompt.spans == (Span(1, 2, 0, "audio", 0),)


def test_a_film_has_a_label_and_markers_for_every_step() -> None:
    prompt = written(VideoPart(fake_video((0.0, 7.0), step_tokens=2)))
    step = (VISION_START, VIDEO_PAD, VIDEO_PAD, VISION_END)
    assert prompt.ids == (VIDEO_START, *label("00:00"), *step, *label("00:07"), *step, VIDEO_END)
    assert prompt.spans == (Span(7, 2, 0, "vision", 0), Span(16, 2, 0, "vision", 2))


def test_the_sound_of_a_film_follows_each_step() -> None:
    # 6.25 rows a second: step 0 sounds from row 0 to 6, step 1 from row 6 to 12, of which 9 exist.
    prompt = written(VideoPart(fake_video((0.0, 1.0), step_tokens=1, audio=fake_audio(9))))
    assert [(s.stream, s.offset, s.length) for s in prompt.spans] == [
        ("vision", 0, 1),
        ("audio", 0, 6),
        ("vision", 1, 1),
        ("audio", 6, 3),
    ]
    assert {s.item for s in prompt.spans} == {0} and prompt.ids.count(AUDIO_PAD) == 9


def test_a_step_after_the_sound_has_ended_keeps_an_empty_pair() -> None:
    prompt = written(VideoPart(fake_video((0.0, 1.0), step_tokens=1, audio=fake_audio(6))))
    assert prompt.ids[-3:] == (AUDIO_START, AUDIO_END, VIDEO_END)
    assert [s.stream for s in prompt.spans] == ["vision", "audio", "vision"]


def test_the_interleave_length_of_the_checkpoint_is_obeyed() -> None:
    film = VideoPart(fake_video((0.0, 1.0), step_tokens=1, audio=fake_audio(12)))
    prompt = written(film, replace(PROCESSOR, video_audio_interleave_length=-1.0))
    assert [(s.stream, s.length) for s in prompt.spans] == [("vision", 1), ("vision", 1), ("audio", 12)]


@pytest.mark.parametrize(
    ("field", "part", "name"),
    [
        ("image_token_id", ImagePart(fake_image()), "picture"),
        ("vision_end_token_id", VideoPart(fake_video()), "film"),
        ("video_start_token_id", VideoPart(fake_video()), "film"),
        ("audio_start_token_id", AudioPart(fake_audio()), "recording"),
    ],
)
def test_a_model_without_the_ids_takes_no_such_medium(field: str, part: ImagePart, name: str) -> None:
    with pytest.raises(UsageError, match=f"this model takes no {name}"):
        written(part, replace(PROCESSOR, **{field: None}))


def test_writing_continues_after_a_base() -> None:
    base = written(ImagePart(fake_image(1)))
    writer = PromptWriter(TOKENIZER, PROCESSOR, base)
    writer.write_ids([7])
    writer.write_media(AudioPart(fake_audio(1)))
    prompt = writer.prompt()
    assert prompt.ids[: len(base)] == base.ids and prompt.ids[3:5] == (7, AUDIO_START)
    assert prompt.spans == (Span(1, 1, 0, "vision"), Span(5, 1, 1, "audio")) and len(prompt.items) == 2


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([VISION_START, IMAGE_PAD, VISION_END], ("image", 3)),
        ([VISION_START, IMAGE_PAD, IMAGE_PAD, VISION_END, 1], ("image", 4)),
        ([VISION_START, VIDEO_PAD, VISION_END], ("video", 3)),
        ([AUDIO_START, AUDIO_PAD, AUDIO_END], ("audio", 3)),
        ([VISION_START, VISION_END], None),
        ([VISION_START, IMAGE_PAD], None),
        ([VISION_START, IMAGE_PAD, AUDIO_END], None),
        ([VISION_START, IMAGE_PAD, VIDEO_PAD, VISION_END], None),
        ([VISION_START, None, VISION_END], None),
        ([None, IMAGE_PAD, VISION_END], None),
    ],
)
def test_a_placeholder_is_start_pads_end_of_one_kind(ids: list[int | None], found: tuple[str, int] | None) -> None:
    assert MediaIds.from_processor(PROCESSOR).match(ids, 0) == found


def test_the_queue_hands_out_parts_of_a_kind_in_order() -> None:
    parts = [ImagePart(fake_image(1)), AudioPart(fake_audio()), ImagePart(fake_image(2))]
    queue = MediaQueue(parts)
    assert [queue.take("image"), queue.take("image"), queue.take("audio")] == [parts[0], parts[2], parts[1]]
    queue.check()
    assert queue.take("video") is None
    with pytest.raises(UsageError, match=r"1 placeholders for 0 film\(s\)"):
        queue.check()
