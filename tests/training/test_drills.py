"""Drills: what is asked for is what the question holds, by an independent reading of it."""

import numpy as np
import pytest

from training.data.dice import Dice
from training.drills import far_repeats, lists, lookup, repeats, several_sums, several_words
from training.prompts import Example, Prompter


def texts(prompter: Prompter, example: Example) -> tuple[str, str]:
    """The user's text and the visible answer."""
    prompt = prompter.tokenizer.decode(example.ids[: example.answer])
    answer = prompter.tokenizer.decode(example.ids[example.scored :])
    return prompt.split("user\n")[1].split("<|im_end|>")[0], answer.removesuffix("<|im_end|>")


@pytest.mark.parametrize("length", [256, 800])
def test_the_second_half_repeats_the_first(prompter: Prompter, length: int) -> None:
    for source in (far_repeats(prompter, length), repeats(prompter)):
        for seed in range(20):
            (example,) = source(np.random.default_rng(seed), "train")
            half = len(example) // 2
            assert len(example) <= length and example.answer == half + 1
            assert (example.ids[:half] == example.ids[half:]).all()


def test_far_repeats_reach_beyond_a_window(prompter: Prompter) -> None:
    lengths = [len(far_repeats(prompter, 800)(np.random.default_rng(seed), "train")[0]) // 2 for seed in range(40)]
    assert sum(length > 128 for length in lengths) > 30 and max(lengths) > 300


def test_lists_of_sums_are_right(prompter: Prompter) -> None:
    for seed in range(30):
        question, answer = texts(prompter, several_sums(prompter, Dice(np.random.default_rng(seed)))[0])
        for given in answer.replace("; ", ", ").replace("\n", ", ").split(", "):
            assert int(given) >= 0
        joint = next(sign for sign in (", ", "\n", "; ") if sign in question)
        asked = [
            part.split(": ")[-1].removeprefix("Results of ").removesuffix(" = ?") for part in question.split(joint)
        ]
        assert [str(eval(part.replace("x", "*"))) for part in asked] == answer.split(joint)


def test_lists_of_words_are_right(prompter: Prompter) -> None:
    changes = {"backwards": lambda word: word[::-1], "capital": str.upper, "letters": lambda word: str(len(word))}
    for seed in range(40):
        question, answer = texts(prompter, several_words(prompter, Dice(np.random.default_rng(seed)))[0])
        ask, words = question.replace("?", ":").split(": ")
        change = next((change for sign, change in changes.items() if sign in ask), "-".join)
        assert answer == ", ".join(change(word) for word in words.split(", "))


def test_lookups_name_a_value_of_the_list(prompter: Prompter) -> None:
    for example in lookup(prompter, Dice(np.random.default_rng(3))):
        question, answer = texts(prompter, example)
        assert answer in question


def test_the_source_of_lists_draws_both(prompter: Prompter) -> None:
    tasks = {lists(prompter)(np.random.default_rng(seed), "train")[0].task for seed in range(30)}
    assert "drill sums" in tasks and len(tasks) > 3
