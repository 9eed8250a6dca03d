"""Media rows: streamed, spliced by position, known by content, refused where something does not fit."""

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mimo_cli.engine.embeddings import EncodedRows, MediaEncoder, stream_tokens
from mimo_cli.engine.stats import Progress
from mimo_cli.errors import MediaError, MimoError
from mimo_cli.media.prompt import Prompt, Span
from mimo_cli.media.types import ImageInput
from tests.support.engines import film, media_prompt, miniature_engine, picture, recording

ENGINE = miniature_engine()
HIDDEN = ENGINE.config.hidden_size


def encoder(budget_bytes: int = 2**20) -> MediaEncoder:
    towers = ENGINE.media
    return MediaEncoder(
        towers.vision,
        towers.audio_tokenizer,
        towers.audio,
        hidden_size=HIDDEN,
        dtype=torch.float32,
        budget_bytes=budget_bytes,
    )


def test_a_picture_becomes_what_the_tower_says() -> None:
    cat = picture(1)
    ((pixel_values, grid),) = cat.chunks()
    expected = ENGINE.media.vision(torch.from_numpy(pixel_values), torch.from_numpy(grid))
    assert torch.equal(encoder().rows(cat, "vision"), expected)


def test_a_film_in_pieces_equals_the_film_in_one_piece() -> None:
    clip = film(1, steps=3)
    pixel_values = torch.cat([torch.from_numpy(values) for values, _ in clip.chunks()])
    expected = ENGINE.media.vision(pixel_values, [clip.grid_thw])
    torch.testing.assert_close(encoder().rows(clip, "vision"), expected, atol=1e-5, rtol=0)


def test_segments_of_a_recording_are_joined_before_codes_are_grouped() -> None:
    talk = recording(1, rows=(104, 37))  # 26 and 10 codes: the seventh group straddles the segments
    towers = ENGINE.media
    codes = torch.cat([towers.audio_tokenizer.codes(torch.from_numpy(mel)) for mel in talk.segments()])
    expected = towers.audio(codes)
    rows = encoder().rows(talk, "audio")
    assert rows.shape == (9, HIDDEN)
    assert torch.equal(rows, expected)


def test_a_film_has_rows_of_pictures_and_of_sound() -> None:
    clip = film(1, steps=2, audio=recording(2))
    rows = encoder()
    assert rows.rows(clip, "vision").shape == (12, HIDDEN)
    assert torch.equal(rows.rows(clip, "audio"), encoder().rows(recording(2), "audio"))


def test_an_item_is_read_once_and_its_rows_are_kept() -> None:
    cat, rows = picture(1), encoder()
    first = rows.rows(cat, "vision")
    assert rows.rows(cat, "vision") is first
    assert cat.read_chunks.decoded == 1


def test_an_equal_item_finds_the_rows_by_content_when_its_key_is_known() -> None:
    rows, twin = encoder(), picture(1)
    first = rows.rows(picture(1), "vision")
    assert rows.key(twin, "vision") == rows.key(picture(1), "vision") != rows.key(picture(2), "vision")
    assert rows.rows(twin, "vision") is first and twin.read_chunks.decoded == 1


def test_the_grid_belongs_to_the_content() -> None:
    wide, tall = picture(1, grid=(1, 4, 6)), picture(1, grid=(1, 6, 4))
    assert np.array_equal(next(wide.chunks())[0], next(tall.chunks())[0])
    assert encoder().key(wide, "vision") != encoder().key(tall, "vision")


def test_rows_beyond_the_budget_are_forgotten_oldest_first() -> None:
    one = picture(1).num_tokens * HIDDEN * 4
    rows, cats = encoder(budget_bytes=2 * one), [picture(seed) for seed in range(3)]
    for cat in cats:
        rows.rows(cat, "vision")
    assert rows.rows(cats[2], "vision") is not None and cats[2].read_chunks.decoded == 1
    rows.rows(cats[0], "vision")
    assert cats[0].read_chunks.decoded == 2


def test_an_item_larger_than_the_budget_is_still_encoded() -> None:
    assert len(encoder(budget_bytes=0).rows(picture(1), "vision")) == 6


def test_forgotten_items_are_not_kept_alive() -> None:
    rows, cat = encoder(), picture(1)
    rows.rows(cat, "vision")
    ghost = weakref.ref(cat)
    del cat
    gc.collect()
    assert ghost() is None


def test_one_piece_of_a_film_is_alive_at_a_time() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal most
        for _ in range(5):
            most = max(most, sum(ref() is not None for ref in alive))
            values = np.zeros((24, 1536), np.float32)
            alive.append(weakref.ref(values))
            yield values, np.array([[1, 4, 6]], np.int64)
            del values

    clip = film(0, steps=5)
    object.__setattr__(clip, "read_chunks", chunks)
    encoder().rows(clip, "vision")
    assert most == 0  # when the next piece is decoded, the one before is gone


def test_progress_counts_rows() -> None:
    seen: list[Progress] = []
    encoder().rows(film(1, steps=3), "vision", seen.append)
    assert [(p.stage, p.done_tokens, p.total_tokens, p.source) for p in seen] == [
        ("encode", done, 18, "noise.mp4") for done in (6, 12, 18)
    ]


def test_progress_of_sound_counts_segments() -> None:
    seen: list[int] = []
    encoder().rows(recording(1, rows=(160, 160, 80)), "audio", lambda p: seen.append(p.done_tokens))
    assert seen == [10, 20, 25]


def test_encoding_leaves_no_inference_mode_behind() -> None:
    def look(progress: Progress) -> None:
        assert not torch.is_inference_mode_enabled()

    encoder().rows(film(1), "vision", look)
    encoder().rows(recording(1), "audio", look)


@pytest.mark.parametrize("promised", [5, 7])
def test_a_wrong_number_of_rows_is_an_error(promised: int) -> None:
    cat = picture(1)
    wrong = ImageInput(cat.source, cat.size_px, cat.grid_thw, promised, cat.read_chunks)
    with pytest.raises(MimoError, match=f"noise.png` was encoded to 6 rows, {promised} expected"):
        encoder().rows(wrong, "vision")


def test_a_tower_that_is_not_there_is_named() -> None:
    deaf = MediaEncoder(ENGINE.media.vision, None, None, hidden_size=HIDDEN, dtype=torch.float32)
    assert len(deaf.rows(picture(1), "vision")) == 6
    with pytest.raises(MediaError, match=r"noise.wav.*no audio encoder"):
        deaf.rows(recording(1), "audio")


@pytest.mark.parametrize(("item", "stream"), [(picture(1), "audio"), (film(1), "audio"), (recording(1), "vision")])
def test_asking_for_a_stream_that_an_item_lacks_is_an_error(item: object, stream: str) -> None:
    with pytest.raises(MediaError, match="has no"):
        stream_tokens(item, stream)


def put(prompt: Prompt, start: int, stop: int) -> torch.Tensor:
    embeddings = torch.zeros(stop - start, HIDDEN)
    EncodedRows(prompt, 0, ENGINE.media, None).put(embeddings, start)
    return embeddings


def test_rows_go_to_their_positions_and_nowhere_else() -> None:
    first, second = picture(1), picture(2)
    prompt = media_prompt([7, 8], first, [9], second)
    embeddings = put(prompt, 0, len(prompt))
    assert torch.equal(embeddings[2:8], ENGINE.media.rows(first, "vision"))
    assert torch.equal(embeddings[9:15], ENGINE.media.rows(second, "vision"))
    assert not embeddings[[0, 1, 8]].any()


@pytest.mark.parametrize("cut", range(16))
def test_a_prompt_cut_anywhere_gets_the_same_rows(cut: int) -> None:
    prompt = media_prompt([7, 8], picture(1), [9], picture(2), [10])
    whole = put(prompt, 0, len(prompt))
    assert torch.equal(torch.cat([put(prompt, 0, cut), put(prompt, cut, len(prompt))]), whole)


def test_an_offset_takes_the_later_rows_of_an_item() -> None:
    talk = recording(1)
    rows = ENGINE.media.rows(talk, "audio")
    prompt = Prompt((5,) * 4, (Span(0, 2, 0, "audio", 3), Span(2, 2, 0, "audio", 0)), (talk,))
    assert torch.equal(put(prompt, 0, 4), torch.cat([rows[3:5], rows[:2]]))


def test_a_span_beyond_the_rows_is_an_error() -> None:
    prompt = Prompt((5,) * 4, (Span(0, 4, 0, "audio", 5),), (recording(1),))
    with pytest.raises(MimoError, match=r"rows up to 9 of `noise.wav`, which has 7"):
        put(prompt, 0, 4)


def test_only_what_is_still_to_be_read_is_encoded() -> None:
    first, second = picture(11), picture(12)
    prompt = media_prompt([7], first, [8], second)
    EncodedRows(prompt, 8, ENGINE.media, None)
    assert (first.read_chunks.decoded, second.read_chunks.decoded) == (0, 1)
