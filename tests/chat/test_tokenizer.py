import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.errors import CheckpointError
from tests.support.chat_golden import by_name, render_cases, subset_tokenizer
from tests.support.tiny_tokenizer import ADDED_TOKENS, tiny_json, tiny_tokenizer, write_tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@pytest.mark.parametrize("case", render_cases(), ids=by_name)
def test_reference_prompts_have_the_releases_ids(case: dict) -> None:
    assert subset_tokenizer().encode(case["expected"], added_tokens=True) == case["token_ids"]


def test_the_first_check_of_any_build() -> None:
    ids = subset_tokenizer().encode(render_cases()[2]["expected"], added_tokens=True)
    assert (len(ids), ids[:3], ids[-4:]) == (27, [151644, 8948, 198], [77091, 198, 151667, 151668])


def test_added_tokens_are_read_from_text_only_on_request() -> None:
    text = "a<|im_end|><think>"
    with_tokens = TOKENIZER.encode(text, added_tokens=True)
    assert with_tokens[1:] == [TOKENIZER.added_tokens["<|im_end|>"], TOKENIZER.added_tokens["<think>"]]
    without = TOKENIZER.encode(text, added_tokens=False)
    assert not set(without) & set(TOKENIZER.added_tokens.values())
    assert TOKENIZER.decode(without) == text


def test_special_tokens_can_be_left_out_of_decoded_text() -> None:
    ids = TOKENIZER.encode("<think>a</think>b<|im_end|>", added_tokens=True)
    assert TOKENIZER.decode(ids) == "<think>a</think>b<|im_end|>"
    assert TOKENIZER.decode(ids, skip_special=True) == "<think>a</think>b"


@given(st.text())
def test_any_text_survives_encoding(text: str) -> None:
    ids = TOKENIZER.encode(text, added_tokens=False)
    # NFC normalization is part of the tokenizer.
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text)


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)), st.booleans())
def test_a_stream_gives_what_the_whole_gives(ids: list[int], skip_special: bool) -> None:
    stream = TOKENIZER.stream(skip_special=skip_special)
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) + stream.finish() == TOKENIZER.decode(ids, skip_special=skip_special)


def test_a_stream_never_splits_a_character() -> None:
    text = "é中🐱👩‍🚀ß"
    ids = TOKENIZER.encode(text, added_tokens=False)
    stream = TOKENIZER.stream()
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) == text and stream.finish() == ""
    assert "\ufffd" not in "".join(pieces) and "" in pieces


def test_a_character_cut_off_at_the_end_becomes_a_replacement() -> None:
    ids = TOKENIZER.encode("ab🐱", added_tokens=False)[:-1]
    stream = TOKENIZER.stream()
    assert "".join(stream.push(token_id) for token_id in ids) == "ab"
    assert stream.finish() == "\ufffd"


def test_decoding_agrees_with_the_library() -> None:
    backend = Backend.from_str(tiny_json())
    for case in render_cases():
        ids = TOKENIZER.encode(case["expected"], added_tokens=True)
        assert TOKENIZER.decode(ids) == backend.decode(ids, skip_special_tokens=False)


def test_lone_surrogates_do_not_stop_encoding() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b", added_tokens=False)) == "a\ufffdb"
    assert TOKENIZER.decode(TOKENIZER.encode("\ud83d\udc31", added_tokens=True)) == "🐱"


def test_ids_without_a_token_are_never_valid() -> None:
    known = TOKENIZER.vocab_size
    assert TOKENIZER.never_valid_ids(known + 3) == (known, known + 1, known + 2)
    assert TOKENIZER.never_valid_ids(known) == ()
    assert TOKENIZER.decode([known, -1]) == ""
    assert len(subset_tokenizer().never_valid_ids(152576)) == 152576 - subset_tokenizer().vocab_size


def test_a_gap_in_the_vocabulary_is_never_valid() -> None:
    invalid = subset_tokenizer().never_valid_ids(152576)
    assert invalid[-901:] == tuple(range(151675, 152576))
    assert 151645 not in invalid


def test_the_release_has_32_added_tokens_of_which_20_are_special() -> None:
    tokenizer = subset_tokenizer()
    assert list(tokenizer.added_tokens) == ADDED_TOKENS
    assert list(tokenizer.added_tokens.values()) == list(range(151643, 151675))
    assert len(tokenizer.special_ids) == 20
    assert tokenizer.added_tokens["<think>"] not in tokenizer.special_ids


def test_the_tokenizer_of_a_folder_is_loaded(tmp_path: Path) -> None:
    loaded = Tokenizer.from_folder(write_tiny_tokenizer(tmp_path))
    assert loaded.added_tokens == TOKENIZER.added_tokens
    assert loaded.sha256 == TOKENIZER.sha256 != subset_tokenizer().sha256


def test_a_missing_or_damaged_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json` is missing"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tiny_json()[:1000])
    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        Tokenizer.from_folder(tmp_path)


def test_another_decoder_is_refused_by_name() -> None:
    backend = Backend(models.BPE())
    backend.decoder = decoders.Metaspace()
    with pytest.raises(CheckpointError, match="decoder `Metaspace` is not implemented"):
        Tokenizer(backend, "folder")
