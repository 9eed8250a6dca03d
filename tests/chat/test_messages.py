from dataclasses import FrozenInstanceError

import pytest

from mimo_cli.chat.messages import AudioPart, Generated, ImagePart, Message, TextPart, VideoPart
from tests.support.fake_media import fake_audio, fake_image, fake_video


def test_a_message_is_built_of_strings_and_parts() -> None:
    picture = ImagePart(fake_image())
    message = Message.of("user", picture, "What ", "is it?")
    assert message.parts == (picture, TextPart("What "), TextPart("is it?"))
    assert message.text == "What is it?" and message.media == (picture,)


def test_parts_know_their_kind() -> None:
    parts = (ImagePart(fake_image()), VideoPart(fake_video()), AudioPart(fake_audio()))
    assert [part.kind for part in parts] == ["image", "video", "audio"]


def test_messages_compare_by_what_they_say_not_by_their_ids() -> None:
    plain = Message("assistant", (TextPart("a"),), reasoning="")
    assert plain == Message("assistant", (TextPart("a"),), reasoning="", generated=Generated((1, 2), True))
    assert plain != Message("assistant", (TextPart("a"),))
    with pytest.raises(FrozenInstanceError):
        plain.role = "user"  # type: ignore[misc]
