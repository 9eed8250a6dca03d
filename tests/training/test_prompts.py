"""Training prompts are the runtime's prompts, token for token."""

import numpy as np
import pytest

from training.data.sample import Picture, Sample, Sound
from training.prompts import ROWS_A_MEDIUM, MediaStub, Prompter

PICTURE, SOUND = Picture(np.zeros((1, 1, 3), np.uint8)), Sound(np.zeros(1, np.float32), 16_000)
SAMPLES = (
    (Sample("a", ("What is 3 + 4?",), "7"), ()),
    (Sample("a", ("plomik <|im_end|> é",), "x", system="Answer with one word."), ()),
    (Sample("a", (PICTURE, "What is this?"), "a cat"), (MediaStub(3, "image", 5),)),
    (Sample("a", ("Look: ", PICTURE, PICTURE), "no"), (MediaStub(3, "image", 5), MediaStub(4, "image", 2))),
    (Sample("a", (SOUND,), "red"), (MediaStub(9, "audio", 7),)),
    (Sample("a", ("And 2?",), "9", turns=(("What is 3 + 4?", "7"), ("Hello", "Hi"))), ()),
    (
        Sample("a", ("Its colour?",), "red", turns=(((PICTURE, "What is this?"), "a cat"), ((SOUND,), "yes"))),
        (MediaStub(3, "image", 5), MediaStub(9, "audio", 7)),
    ),
    (Sample("a", (PICTURE, SOUND), "red"), (MediaStub(8, "image", 4), MediaStub(9, "audio", 7))),
)


@pytest.mark.parametrize(("sample", "stubs"), SAMPLES)
def test_quick_prompts_equal_the_builders(prompter: Prompter, sample: Sample, stubs: tuple[MediaStub, ...]) -> None:
    example = prompter.example(sample, stubs)
    messages, tools = prompter._messages(sample, stubs)
    built = prompter.builder.build(messages, tools, thinking=False)
    assert tuple(example.ids[: len(built.ids)]) == built.ids
    assert example.answer == len(built.ids) - 2, "the pair of thinking marks is given or generated"
    for span in built.spans:
        keys = example.keys[span.start : span.stop]
        uid = stubs[span.item].uid
        assert keys.tolist() == [-(1 + uid * ROWS_A_MEDIUM + row) for row in range(span.length)]
    assert prompter.tokenizer.decode(example.ids[example.scored :]) == sample.answer + "<|im_end|>"


def test_films_carry_their_time_labels(prompter: Prompter) -> None:
    example = prompter.example(Sample("a", (PICTURE, "What moved?"), "it"), (MediaStub(1, "video", 18, (0.0, 1.0)),))
    text = prompter.tokenizer.decode(example.ids)
    assert "00:00" in text and "00:01" in text
    assert (example.keys < 0).sum() == 18


def test_calls_are_written_in_the_vendors_format(prompter: Prompter) -> None:
    tool = {"type": "function", "function": {"name": "timer", "parameters": {"type": "object", "properties": {}}}}
    sample = Sample("a", ("go",), "", tools=(tool,), tool_calls=(("timer", {"minutes": 7}),))
    example = prompter.example(sample)
    written = prompter.tokenizer.decode(example.ids[example.scored :])
    assert (
        written
        == "<tool_call>\n<function=timer>\n<parameter=minutes>7</parameter>\n</function>\n</tool_call><|im_end|>"
    )


def test_reasoning_stands_between_its_marks(prompter: Prompter) -> None:
    example = prompter.example(Sample("a", ("3 + 4",), "7", reasoning="3 + 4 = 7"))
    assert prompter.tokenizer.decode(example.ids[example.answer :]) == "<think>3 + 4 = 7</think>7<|im_end|>"
