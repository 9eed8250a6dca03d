"""The miniature on the example media: every sense reaches the answer, and a real conversation ends by itself."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mimo_cli
from mimo_cli.api import Engine
from tests.support.miniature import random_miniature
from tests.support.source_tree import ROOT

EXAMPLES = ROOT / "examples"
QUESTION = {"type": "text", "text": "What is this?"}


@pytest.fixture(scope="module")
def model() -> Iterator[Engine]:
    with mimo_cli.load(random_miniature(), dtype="float32") as loaded:
        yield loaded


def part(kind: str, path: Path) -> dict[str, object]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": str(path)}}


@cache
def _asked(model: Engine, *parts: tuple[str, str]) -> tuple[str, str, int]:
    content = [part(kind, EXAMPLES / name) for kind, name in parts] + [QUESTION]
    answer = model.chat([{"role": "user", "content": content}], thinking=False, temperature=0.0, max_tokens=120)
    finished = list(answer)[-1]
    return finished.message.text, finished.finish_reason, answer.stats.prompt_tokens


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (("image", "cat.jpg"),),
        (("image", "coffee.jpg"), ("image", "cat.jpg")),
        (("audio", "speech.flac"),),
        (("video", "clip.mp4"),),
    ],
    ids=["text", "image", "two images", "audio", "video"],
)
def test_an_answer_ends_by_itself(model: Engine, parts: tuple[tuple[str, str], ...]) -> None:
    text, reason, _ = _asked(model, *parts)
    assert reason == "stop" and len(text) > 20


def test_every_medium_changes_the_answer(model: Engine) -> None:
    media = [
        (),
        (("image", "cat.jpg"),),
        (("image", "coffee.jpg"),),
        (("audio", "speech.flac"),),
        (("video", "clip.mp4"),),
    ]
    answers = {_asked(model, *parts)[0] for parts in media}
    assert len(answers) == len(media)


def test_media_take_the_tokens_that_the_release_would_give_them(model: Engine) -> None:
    nothing = _asked(model)[2]
    # 451x300 becomes 448x288, 14 x 9 units of 32x32 pixels, between two markers.
    assert _asked(model, ("image", "cat.jpg"))[2] - nothing == 14 * 9 + 2
    # 7.1 s at 24 kHz are 170,400 samples: ceil((1 + floor(N / 240)) / 16) = 45 tokens, between two markers.
    assert _asked(model, ("audio", "speech.flac"))[2] - nothing == 45 + 2
