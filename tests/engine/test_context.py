"""What fits a context, and what a refusal advises."""

import re

import pytest
import torch

from mimo_cli.engine.context import check_prompt, kv_bytes_per_token
from mimo_cli.errors import ContextOverflowError, MimoError, UsageError
from mimo_cli.kvcache.cache import KVCache
from mimo_cli.media.prompt import Prompt, Span
from tests.support.engines import golden_engine, golden_ids, media_prompt, recording
from tests.support.fake_media import fake_audio, fake_image, fake_video
from tests.support.tiny_config import tiny_config

CONFIG = tiny_config(max_position_embeddings=8192)


def refusal(prompt: Prompt, max_tokens: int = 1000) -> ContextOverflowError:
    with pytest.raises(ContextOverflowError) as caught:
        check_prompt(prompt, CONFIG, max_tokens)
    return caught.value


def test_bytes_of_a_token_are_those_the_cache_grows_by() -> None:
    engine = golden_engine()
    cache = KVCache.for_decoder(engine.config, torch.float32)
    with torch.inference_mode():
        engine.decoder(engine.decoder.embed(torch.tensor([golden_ids(2)[:300]])), torch.arange(300), cache)
    growing = sum(layer.nbytes for i, layer in enumerate(cache.layers) if not engine.config.is_sliding(i))
    assert growing == 300 * kv_bytes_per_token(engine.config, torch.float32)


def test_a_prompt_that_fits_passes() -> None:
    check_prompt(Prompt((1,) * 1000), CONFIG, 1000)


def test_a_text_that_a_larger_context_holds_is_told_which() -> None:
    error = refusal(Prompt((1,) * 1001))
    assert "1,001 tokens" in str(error) and "holds 1,000" in str(error)
    assert error.hint == "start with --ctx 2048"


def test_the_advised_context_leaves_room_for_an_answer() -> None:
    hint = refusal(Prompt((1,) * 5000)).hint or ""
    assert int(hint.split()[-1]) >= 5000 + 1024


def test_a_text_beyond_the_model_is_told_the_models_limit() -> None:
    assert "8,192" in (refusal(Prompt((1,) * 9000), 8192).hint or "")


def test_media_are_counted_apart() -> None:
    prompt = media_prompt([1] * 20, fake_image(3000))
    assert "3,020 tokens (3,000 of them media)" in str(refusal(prompt))


def test_a_picture_beyond_the_model_is_told_the_pixels_that_fit() -> None:
    prompt = media_prompt([1] * 100, fake_image(10_000))
    hint = refusal(prompt, 8192).hint or ""
    pixels = int(re.search(r"--max-pixels (\d+)", hint)[1])
    assert pixels <= 1024 * (8192 - 100)  # a token stands for 32 x 32 pixels
    assert "cat.png" in hint and "--fps" not in hint


def test_a_film_beyond_the_model_may_also_be_sampled_sparser() -> None:
    clip = fake_video(tuple(range(10)), step_tokens=1000)
    spans = (Span(0, 10_000, 0, "vision"),)
    hint = refusal(Prompt((1,) * 10_000, spans, (clip,)), 8192).hint or ""
    # Ten steps of two frames in ten seconds, of which seven fit beside an answer.
    assert "--fps 1.43" in hint and "--max-pixels" in hint


def test_a_film_that_a_larger_context_holds_may_also_be_made_smaller() -> None:
    clip = fake_video(tuple(range(10)), step_tokens=100)
    hint = refusal(Prompt((1,) * 1100, (Span(0, 1000, 0, "vision"),), (clip,))).hint or ""
    options = dict(re.findall(r"(--[a-z-]+) ([\d.]+)", hint))
    assert int(options["--ctx"]) >= 1100 and hint.startswith("start with --ctx")
    assert int(options["--max-pixels"]) <= 1024 * 65 and float(options["--fps"]) == 1.3


def test_a_picture_that_a_larger_context_holds_may_also_be_made_smaller() -> None:
    hint = refusal(media_prompt([1] * 100, fake_image(2000))).hint or ""
    pixels = int(re.search(r"or --max-pixels (\d+)$", hint)[1])
    assert 0 < pixels <= 1024 * 900


def test_options_that_do_not_help_are_not_advised() -> None:
    clip = fake_video(tuple(range(10)), step_tokens=1)
    hint = refusal(Prompt((1,) * 1100, (Span(0, 10, 0, "vision"),), (clip,))).hint
    assert hint == "start with --ctx 3072"
    assert refusal(media_prompt([1], fake_audio(2000))).hint == "start with --ctx 3072"


def test_a_recording_beyond_the_model_must_be_cut() -> None:
    hint = refusal(media_prompt([1], fake_audio(20_000)), 8192).hint or ""
    assert "talk.wav" in hint and "36%" in hint


@pytest.mark.parametrize("ids", [(), (0, -1), (0, 40)])
def test_ids_without_a_row_in_the_embedding_are_usage_errors(ids: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        check_prompt(Prompt(ids), CONFIG, 100)


def test_every_row_of_a_picture_needs_its_placeholder() -> None:
    prompt = Prompt((1,) * 10, (Span(2, 3, 0, "vision"),), (fake_image(4),))
    with pytest.raises(MimoError, match=r"cat.png` has 4 rows but 3 placeholders"):
        check_prompt(prompt, CONFIG, 100)


def test_a_picture_without_any_placeholder_is_an_error() -> None:
    with pytest.raises(MimoError, match="0 placeholders"):
        check_prompt(Prompt((1, 2), (), (fake_image(4),)), CONFIG, 100)


def test_the_sound_of_a_film_may_be_dealt_out_in_part() -> None:
    clip = fake_video(step_tokens=2, audio=fake_audio(30))
    spans = (Span(0, 2, 0, "vision"), Span(2, 3, 0, "audio"), Span(5, 2, 0, "vision", 2))
    check_prompt(Prompt((1,) * 8, spans, (clip,)), CONFIG, 100)


def test_a_recording_alone_may_not() -> None:
    prompt = Prompt((1,) * 8, (Span(0, 3, 0, "audio"),), (recording(),))
    with pytest.raises(MimoError, match="7 rows but 3"):
        check_prompt(prompt, CONFIG, 100)
