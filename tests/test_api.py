"""The public interface: what scripts rely on, through the bundled miniature and the reference checkpoints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mimo_cli
from mimo_cli import api
from mimo_cli.chat.events import Finished, TextDelta
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.errors import CheckpointError, MediaError, MimoError, UsageError
from tests.support.engines import GOLDEN, MINIATURE, copy_checkpoint, golden_arrays, golden_ids

EXAMPLES = Path(__file__).parents[1] / "examples"
CAT = {"type": "image", "path": str(EXAMPLES / "cat.jpg")}
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 6}


def question(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


@pytest.fixture(scope="module")
def model() -> api.Engine:
    return mimo_cli.load(MINIATURE)


def ask(model: api.Engine, *messages: Any, **settings: Any) -> tuple[str, Finished]:
    *events, finished = model.chat(list(messages), **{**GREEDY, **settings})
    return "".join(event.text for event in events if isinstance(event, TextDelta)), finished


def test_public_names_are_these() -> None:
    assert mimo_cli.__all__ == [
        "Engine", "SamplingParams", "__version__", "errors", "load", "load_audio", "load_vision", "render_chat",
    ]  # fmt: skip
    assert all(getattr(mimo_cli, name) is not None for name in mimo_cli.__all__)
    assert mimo_cli.load is api.load and mimo_cli.errors.MimoError is MimoError
    with pytest.raises(AttributeError, match="nonsense"):
        mimo_cli.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, mimo_cli; print(any(m in sys.modules for m in ('torch', 'numpy', 'cv2', 'tokenizers')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_logits_and_drafts_are_the_reference_ones_and_need_no_tokenizer(dtype: str) -> None:
    assert not (GOLDEN / "text" / "tokenizer.json").exists()
    arrays, ids = golden_arrays(), golden_arrays()["seq1_input_ids"]
    with mimo_cli.load(str(GOLDEN / "text"), dtype=dtype) as model:
        logits = model.logits(ids)
        assert logits.dtype == torch.float32 and logits.shape == (131, 512)
        error = (logits - torch.tensor(arrays["seq1_logits"])).abs()
        assert error.max() <= 2e-3 and error.mean() <= 2e-4
        drafts = [int(draft[-1].argmax()) for draft in model.draft_logits(torch.tensor(ids))]
        assert drafts == arrays["seq1_draft_tokens"].tolist()


def test_ids_may_be_a_list_an_array_or_a_tensor(model: api.Engine) -> None:
    expected = model.logits([1, 2, 3])
    for ids in ((1, 2, 3), np.array([1, 2, 3]), torch.tensor([1, 2, 3]), iter([1, 2, 3])):
        assert torch.equal(model.logits(ids), expected)


def test_generate_continues_ids(model: api.Engine) -> None:
    generation = model.generate([1, 2, 3], {"temperature": 0}, max_tokens=5, stop_ids=())
    tokens = [step.token for step in generation]
    ids = [1, 2, 3]
    for token in tokens:
        assert token == int(model.logits(ids)[-1].argmax())
        ids.append(token)
    assert generation.finish_reason == "length" and generation.stats.generated_tokens == 5


def test_generate_stops_at_the_models_own_ids_unless_told_otherwise(model: api.Engine) -> None:
    assert model.generate([1], max_tokens=1).params.stop_ids == model.config.eos_token_ids
    assert model.generate([1], api.SamplingParams(max_tokens=1)).params.stop_ids == ()
    assert model.generate([1], {"stop_ids": (5,)}, max_tokens=1).params.stop_ids == (5,)


def test_the_same_seed_gives_the_same_answer(model: api.Engine) -> None:
    settings = {"temperature": 1.0, "seed": 11, "max_tokens": 8}
    first = ask(model, question(text("Hello")), **settings)
    assert ask(model, question(text("Hello")), **settings)[0] == first[0]
    assert ask(model, question(text("Hello")), **{**settings, "seed": 12})[0] != first[0]


def test_a_chat_ends_with_the_message_and_its_usage(model: api.Engine) -> None:
    answer = model.chat([question(text("Hello"))], **GREEDY)
    events = list(answer)
    finished = events[-1]
    assert isinstance(finished, Finished) and finished is answer.finished
    assert finished.message.role == "assistant" and finished.finish_reason == "length"
    assert finished.usage.completion_tokens == 6 and finished.usage.prompt_tokens == answer.stats.prompt_tokens
    shown = "".join(event.text for event in events[:-1] if isinstance(event, TextDelta) and event.kind == "content")
    assert shown == finished.message.text
    assert answer.stats.first_token_s > 0


def test_a_string_is_a_message_too(model: api.Engine) -> None:
    assert ask(model, {"role": "user", "content": "Hello"})[0] == ask(model, question(text("Hello")))[0]


def test_the_next_turn_reads_only_what_is_new(model: api.Engine) -> None:
    hello = question(text("Tell me about a cat."))
    _, first = ask(model, hello)
    _, second = ask(model, hello, first.message, question(text("Go on.")))
    assert second.usage.cached_tokens >= first.usage.prompt_tokens + 5


def test_a_history_of_plain_dicts_is_recognised(model: api.Engine) -> None:
    hello = question(text("Tell me about a dog."))
    _, first = ask(model, hello)
    answer = {"role": "assistant", "content": first.message.text, "reasoning_content": first.message.reasoning}
    _, second = ask(model, hello, answer, question(text("Go on.")))
    assert second.usage.cached_tokens >= first.usage.prompt_tokens + 5


@pytest.mark.parametrize(
    "part",
    [
        CAT,
        {"type": "audio", "path": str(EXAMPLES / "speech.flac")},
        {"type": "video", "path": str(EXAMPLES / "clip.mp4")},
    ],
)
def test_media_are_heard_and_seen(part: dict[str, str], model: api.Engine) -> None:
    without = model.chat([question(text("What is it?"))], **GREEDY)
    list(without)
    with_media = model.chat([question(part, text("What is it?"))], **GREEDY)
    list(with_media)
    assert with_media.stats.prompt_tokens > without.stats.prompt_tokens + 40
    assert with_media.stats.encode_s > 0


def test_a_film_is_seen_with_and_without_its_sound() -> None:
    clip = question({"type": "video", "path": str(EXAMPLES / "clip.mp4")})
    loud = mimo_cli.load(MINIATURE).chat([clip], **GREEDY)
    list(loud)
    mute = mimo_cli.load(MINIATURE, media=api.MediaChoices(video_audio=False)).chat([clip], **GREEDY)
    list(mute)
    assert loud.stats.prompt_tokens > mute.stats.prompt_tokens


def test_stop_texts_end_the_answer_before_them(model: api.Engine) -> None:
    whole, _ = ask(model, question(text("Hello")))
    stop = whole[3:5]
    shown, finished = ask(model, question(text("Hello")), stop=[stop])
    assert shown == whole[: whole.index(stop)] == finished.message.text
    assert finished.finish_reason == "stop"


def test_a_context_can_be_bounded() -> None:
    with mimo_cli.load(MINIATURE, context_tokens=60) as small:
        with pytest.raises(MimoError, match="context holds 60"):
            ask(small, question(text("Hello " * 100)))
        _, finished = ask(small, question(text("Hi")), max_tokens=None)
        assert finished.finish_reason in ("context", "stop")


def test_a_picture_for_a_text_model_is_a_clear_error(tmp_path: Path) -> None:
    folder = copy_checkpoint(GOLDEN / "text_mxfp4", tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((MINIATURE / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    miniature = json.loads((MINIATURE / "config.json").read_text())
    ids = {key: miniature[key] for key in miniature if key.endswith("token_id")}
    (folder / "config.json").write_text(json.dumps(config | ids | {"processor_config": miniature["processor_config"]}))
    with mimo_cli.load(folder) as model, pytest.raises(MimoError) as caught:
        ask(model, question(CAT))
    assert "vocabulary" in str(caught.value) or "no vision tower" in str(caught.value)
    assert "vision" in model.notes[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: mimo_cli.load(MINIATURE, windw=3), "no option `windw`"),
        (lambda model: model.generate([1], {"temprature": 1}), "no setting `temprature`"),
        (lambda model: model.chat([question(text("Hi"))], top_q=1), "no setting `top_q`"),
        (lambda model: model.chat([]), "at least one message"),
        (lambda model: model.chat([{"role": "king", "content": "Hi"}]), "unknown role"),
        (lambda model: model.chat([question({"type": "image", "image_url": {"url": "https://x.org/a.png"}})]), "net"),
    ],
)
def test_mistakes_are_usage_errors(call: Any, message: str, model: api.Engine) -> None:
    with pytest.raises(UsageError, match=message):
        call(model)


def test_files_that_are_missing_or_no_media_are_named(model: api.Engine) -> None:
    with pytest.raises(MimoError, match=r"nothing\.png"):
        model.chat([question({"type": "image", "path": "nothing.png"})])
    with pytest.raises(MediaError):
        model.chat([question({"type": "image", "path": str(EXAMPLES / "speech.flac")})])
    with pytest.raises(CheckpointError, match=r"config\.json"):
        mimo_cli.load(EXAMPLES)


def test_render_chat_needs_no_model_and_escapes_nothing() -> None:
    rendered = mimo_cli.render_chat([{"role": "user", "content": "<|im_end|>"}], add_generation_prompt=True)
    assert rendered.startswith("<|im_start|>system\n") and rendered.endswith(
        "<|im_end|><|im_end|><|im_start|>assistant\n"
    )


def patched(folder: Path, name: str, offset: int, change: int) -> None:
    """Flip bits of one stored byte of a tensor."""
    info = TensorIndex.open(folder)[name]
    with info.shard.open("r+b") as file:
        file.seek(info.offset + offset)
        byte = file.read(1)[0]
        file.seek(info.offset + offset)
        file.write(bytes([byte ^ change]))


def swapped(folder: Path, one: str, other: str) -> None:
    """Exchange the bytes of two tensors."""
    index = TensorIndex.open(folder)
    data = {}
    for name in (one, other):
        with index[name].shard.open("rb") as file:
            file.seek(index[name].offset)
            data[name] = file.read(index[name].size_bytes)
    for name, source in ((one, other), (other, one)):
        with index[name].shard.open("r+b") as file:
            file.seek(index[name].offset)
            file.write(data[source])


@pytest.mark.parametrize(
    ("name", "offset", "change"),
    [
        ("model.layers.0.self_attn.qkv_proj.weight_scale_inv", 2, 0x40),  # one block scale of a fused projection
        ("model.layers.1.self_attn.attention_sink_bias", 1, 0x80),  # one sink
        ("model.layers.2.mlp.gate.e_score_correction_bias", 3, 0x40),  # one expert's selection bias
        ("model.layers.1.mlp.gate.weight", 3, 0x80),  # one router weight
        ("model.norm.weight", 1, 0x80),
        ("lm_head.weight", 1, 0x80),
    ],
)
def test_one_changed_byte_of_the_weights_changes_the_logits(
    name: str, offset: int, change: int, tmp_path: Path
) -> None:
    folder = copy_checkpoint(GOLDEN / "text", tmp_path / "model")
    patched(folder, name, offset, change)
    ids = golden_ids(1)
    with mimo_cli.load(folder, dtype="float32") as damaged, mimo_cli.load(GOLDEN / "text", dtype="float32") as model:
        assert (damaged.logits(ids) - model.logits(ids)).abs().max() > 1e-4


def test_two_experts_that_changed_places_change_the_logits(tmp_path: Path) -> None:
    folder = copy_checkpoint(GOLDEN / "text", tmp_path / "model")
    swapped(folder, *(f"model.layers.3.mlp.experts.{e}.down_proj.weight" for e in (2, 9)))
    ids = golden_ids(1)
    with mimo_cli.load(folder, dtype="float32") as damaged, mimo_cli.load(GOLDEN / "text", dtype="float32") as model:
        assert (damaged.logits(ids) - model.logits(ids)).abs().max() > 1e-2


def test_one_changed_pixel_and_one_changed_sample_reach_the_logits(model: api.Engine) -> None:
    from tests.support.engines import last_logits, media_prompt, picture, recording

    for medium, change in ((picture(1), picture(1)), (recording(1), recording(1))):
        pieces = next(change.chunks() if hasattr(change, "chunks") else change.segments())
        values = pieces[0] if isinstance(pieces, tuple) else pieces
        before = last_logits(model.core, media_prompt([7], medium, [8]))
        values[3, 40] += 4.0
        assert (last_logits(model.core, media_prompt([7], change, [8])) - before).abs().max() > 1e-4
