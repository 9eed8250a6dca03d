"""The hand-made bias: answers end after some dozens of tokens, sampled or greedy, and consist of printable text."""

from collections.abc import Iterator
from functools import cache

import pytest
import tokenizers
import torch

from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import load_engine
from mimo_cli.media.prompt import Prompt
from mimo_cli.miniature.configuration import MERGES, VOCAB_SIZE
from mimo_cli.miniature.vocabulary import CORPUS, Vocabulary
from tests.support.miniature import random_miniature

QUESTION = "<|im_start|>user\nWhat is in this picture?<|im_end|>"
HEADER = "<|im_start|>assistant\n<think></think>"
CONVERSATION = f"{QUESTION}{HEADER}A cat.<|im_end|><|im_start|>user\nAnd what colour is it?<|im_end|>{HEADER}"
PROMPTS = {
    "short": "<|im_start|>user\nHello!<|im_end|><|im_start|>assistant\n",
    "picture": f"<|im_start|>system\nYou are MiMo.<|im_end|>{QUESTION}{HEADER}",
    "second turn": CONVERSATION,
    "long": f"<|im_start|>user\n{CORPUS.read_text('utf-8')}<|im_end|>{HEADER}",
}
MANY_TOKENS = 120


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary.learn(MERGES, VOCAB_SIZE)


@cache
def tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(random_miniature() / "tokenizer.json"))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load_engine(random_miniature()) as loaded:
        yield loaded


def answer(engine: Engine, text: str, seed: int | None) -> list[int]:
    """Greedy (no seed) or sampled at temperature 1 from all known ids, until the end of the turn or MANY_TOKENS."""
    end = vocabulary().id("<|im_end|>")
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    sequence = engine.start_sequence()
    logits = sequence.prefill(Prompt(tuple(tokenizer().encode(text).ids)))
    ids: list[int] = []
    while len(ids) < MANY_TOKENS:
        logits = logits[: vocabulary().known]
        chosen = logits.argmax() if generator is None else torch.multinomial(logits.softmax(-1), 1, generator=generator)
        if int(chosen) == end:
            break
        ids.append(int(chosen))
        logits = sequence.decode(ids[-1])
    return ids


@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS)
def test_a_greedy_answer_ends_after_some_dozens_of_tokens(engine: Engine, text: str) -> None:
    # The clock fades in from about 30 tokens after the start of the turn on; a greedy answer may need a few more until
    # no other token is ahead.
    assert 12 <= len(answer(engine, text, None)) <= 80


def test_sampled_answers_end_and_differ(engine: Engine) -> None:
    answers = [answer(engine, PROMPTS["picture"], seed) for seed in range(8)]
    lengths = [len(ids) for ids in answers]
    assert max(lengths) <= 80
    assert sorted(lengths)[len(lengths) // 2] >= 20
    assert len({tuple(ids) for ids in answers}) == len(answers)


def test_answers_are_printable_text(engine: Engine) -> None:
    printable = set(vocabulary().printable_ids())
    for seed in range(3):
        assert set(answer(engine, PROMPTS["short"], seed)) <= printable


def test_text_outside_a_turn_does_not_end(engine: Engine) -> None:
    # Without a start of a turn the clock stands still: continuing raw text is left to the caller's limit.
    assert len(answer(engine, "Once there was a lighthouse", None)) == MANY_TOKENS


def test_the_answer_depends_on_the_question(engine: Engine) -> None:
    other = PROMPTS["picture"].replace("picture", "recording")
    assert answer(engine, PROMPTS["picture"], None) != answer(engine, other, None)
