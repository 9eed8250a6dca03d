"""The miniature's vocabulary against the rules of the release's tokenizer and against the tokenizer library itself."""

import json
from functools import cache

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.miniature.configuration import MERGES, VOCAB_SIZE
from mimo_cli.miniature.vocabulary import (
    ADDED_TOKENS,
    CORPUS,
    SPLIT_PATTERN,
    STOP_TOKENS,
    Vocabulary,
    byte_alphabet,
    learn_merges,
)


@cache
def vocabulary() -> Vocabulary:
    return Vocabulary.learn(MERGES, VOCAB_SIZE)


@cache
def library_tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(vocabulary().tokenizer_json()))


def test_the_byte_alphabet_is_the_releases() -> None:
    alphabet = byte_alphabet()
    assert sorted(alphabet) == list(range(256)) and len(set(alphabet.values())) == 256
    assert alphabet[ord(" ")] == "Ġ" and alphabet[ord("\n")] == "Ċ" and alphabet[ord("A")] == "A"
    order = list(alphabet)
    assert order[15:25] == [ord(digit) for digit in "0123456789"] and order[25] == ord(":")


def test_the_added_tokens_keep_the_releases_order() -> None:
    # The release numbers them 151643 to 151674; these offsets are the ones its config.json names.
    offsets = {151644: "<|im_start|>", 151645: "<|im_end|>", 151652: "<|vision_start|>", 151653: "<|vision_end|>"}
    offsets |= {151655: "<|image_pad|>", 151656: "<|video_pad|>", 151667: "<think>", 151668: "</think>"}
    offsets |= {151669: "<|audio_pad|>", 151670: "<|mimo_video_start|>", 151671: "<|mimo_video_end|>"}
    offsets |= {151672: "<|mimo_audio_eod|>", 151673: "<|mimo_audio_start|>", 151674: "<|mimo_audio_end|>"}
    assert len(ADDED_TOKENS) == len(set(ADDED_TOKENS)) == 32
    assert {offset: ADDED_TOKENS[offset - 151643] for offset in offsets} == offsets


def test_twelve_added_tokens_are_not_special() -> None:
    added = {entry["content"]: entry["special"] for entry in vocabulary().tokenizer_json()["added_tokens"]}
    plain = {token for token, special in added.items() if not special}
    assert plain == {
        *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
        *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    }


def test_some_rows_of_the_embedding_have_no_token() -> None:
    assert vocabulary().known == 256 + MERGES + 32 < VOCAB_SIZE == vocabulary().rows
    assert len(set(vocabulary().base)) == len(vocabulary().base)


def test_the_most_frequent_pair_is_merged_first_and_ties_go_to_the_smaller() -> None:
    assert learn_merges("ab ab ab cd", 1) == [("a", "b")]  # three times, with or without the blank before
    assert learn_merges("xy xy zw zw", 1) == [("x", "y")]
    assert learn_merges("aaaa aaaa", 2) == [("a", "a"), ("aa", "aa")]


def test_a_text_without_repeats_yields_no_merges() -> None:
    with pytest.raises(ValueError, match="0 merges, 5 wanted"):
        learn_merges("abc", 5)


def test_the_corpus_is_ascii() -> None:
    # Merges are learned with a splitting expression that knows ASCII letters only.
    assert CORPUS.read_text("utf-8").isascii()


def test_the_library_reads_the_tokenizer_and_restores_its_own_corpus() -> None:
    text = CORPUS.read_text("utf-8")
    encoding = library_tokenizer().encode(text)
    assert library_tokenizer().decode(encoding.ids) == text
    assert len(encoding.ids) < 0.4 * len(text), "the merges are used"


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    composed = library_tokenizer().normalizer.normalize_str(text)  # NFC, as in the release
    ids = library_tokenizer().encode(composed).ids
    assert library_tokenizer().decode(ids, skip_special_tokens=False) == composed


def test_digits_are_tokens_of_their_own_with_the_releases_ids() -> None:
    assert library_tokenizer().encode("00:07").ids == [15, 15, 25, 15, 22]


def test_control_tokens_are_found_in_text_with_their_ids() -> None:
    ids = library_tokenizer().encode("<|im_start|>user").ids
    assert ids[0] == vocabulary().id("<|im_start|>") == 256 + MERGES + 1


def test_no_token_is_added_around_a_text() -> None:
    assert library_tokenizer().encode("").ids == []


def test_printable_ids_decode_to_printable_text() -> None:
    for token in vocabulary().printable_ids():
        text = library_tokenizer().decode([token])
        assert all(32 <= ord(character) < 127 or character == "\n" for character in text)


def test_the_split_pattern_is_in_the_tokenizer_file() -> None:
    split = vocabulary().tokenizer_json()["pre_tokenizer"]["pretokenizers"][0]
    assert split["pattern"] == {"Regex": SPLIT_PATTERN} and split["behavior"] == "Isolated"


def test_tokenizer_config_lists_the_special_tokens_of_the_release() -> None:
    config = vocabulary().tokenizer_config("template")
    assert len(config["additional_special_tokens"]) == 19
    assert config["eos_token"] == "<|im_end|>" and config["bos_token"] is None
    assert config["chat_template"] == "template"
    assert set(STOP_TOKENS) <= set(ADDED_TOKENS)
