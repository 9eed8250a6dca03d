"""The vocabulary: whole words, letters for the rest, fixed ids, and the tokenizer file the runtime reads."""

import json
from pathlib import Path

import pytest

from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.miniature.vocabulary import ADDED_TOKENS
from training.data.vocabulary import VOCABULARY
from training.words import PLACES, WORDS_FILE, WordVocabulary, choose_words, split_pieces


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(json.dumps(WordVocabulary.from_file().tokenizer_json()))
    return Tokenizer.from_folder(folder)


def test_every_word_of_the_closed_vocabulary_is_one_token(tokenizer: Tokenizer) -> None:
    for word in VOCABULARY:
        assert len(tokenizer.encode(f" {word}", added_tokens=False)) == 1, word
        assert len(tokenizer.encode(word, added_tokens=False)) == 1, word


def test_an_unknown_word_is_spelled(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("qzvkw", added_tokens=False)
    assert [tokenizer.decode([token]) for token in ids] == list("qzvkw")


@pytest.mark.parametrize("text", ["What is 3 + 40?", "é ü 日本 🙂", "a\n\n  b\tc", "<reserved_1>", "<|im_end|>"])
def test_text_survives(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, added_tokens=False)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.added_tokens.values())


def test_words_added_at_the_end_move_no_id() -> None:
    words = json.loads(WORDS_FILE.read_text("utf-8"))
    old, new = WordVocabulary.of(words[:-5]), WordVocabulary.of(words)
    assert [old.id(token) for token in ADDED_TOKENS] == [new.id(token) for token in ADDED_TOKENS]
    assert old.base[: 256 + len(words) - 5] == new.base[: 256 + len(words) - 5]


def test_too_many_or_double_words_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        WordVocabulary.of(f"w{i}" for i in range(PLACES + 1))
    with pytest.raises(ValueError, match="doubles"):
        WordVocabulary.of(["red", "red"])


def test_frequent_pieces_follow_the_wanted_ones() -> None:
    counts = split_pieces(["red red red blue blue green", "A"])
    assert counts["Ġred"] == 2 and counts["red"] == 1
    assert choose_words(["Ġpink"], counts, 3) == ["Ġpink", "Ġblue", "Ġred"]


def test_the_list_lies_beside_the_code() -> None:
    assert Path(WORDS_FILE).is_file()
