"""The release's whole tokenizer, rebuilt from a published wheel; skipped where the wheel cannot be had."""

import json
from pathlib import Path

import pytest

from mimo_cli.chat.prompt_builder import PromptBuilder
from mimo_cli.chat.template import ChatTemplate
from mimo_cli.chat.tokenizer import Tokenizer
from tests.support.chat_golden import FOLDER, by_name, render_cases
from tests.support.release_tokenizer import Unavailable, read_release, release_folder, subset
from tests.support.tiny_tokenizer import processor_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return release_folder()
    except Unavailable as err:
        pytest.skip(str(err))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


@pytest.mark.parametrize("case", render_cases(), ids=by_name)
def test_reference_prompts_have_their_ids(case: dict, tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(case["expected"], added_tokens=True) == case["token_ids"]


def test_the_vocabulary_is_the_releases(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 151675
    assert tokenizer.never_valid_ids(152576) == tuple(range(151675, 152576))
    assert tokenizer.encode("Hello!", added_tokens=False) == [9707, 0]
    assert tokenizer.encode("00:07", added_tokens=False) == [15, 15, 25, 15, 22]


def test_the_committed_subset_is_still_what_comes_out(folder: Path) -> None:
    made = subset(*read_release(), [case["expected"] for case in render_cases()])
    assert json.loads((FOLDER / "tokenizer_subset.json").read_text("utf-8")) == made


def test_the_first_prompt_can_be_built_with_the_processor_of_the_release(tokenizer: Tokenizer) -> None:
    PromptBuilder(tokenizer, ChatTemplate.built_in(), processor_for(tokenizer))
