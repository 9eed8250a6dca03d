import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mimo_cli.miniature.bundled import bundled_path
from tests.support.cli import Run, run_cli
from tests.support.stores import SOURCES, made_store

EXAMPLES = Path(__file__).parents[2] / "examples"
QKV = "model.layers.0.self_attn.qkv_proj.weight"

Inspect = Callable[..., Run]


@pytest.fixture
def inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inspect:
    monkeypatch.chdir(tmp_path)
    return lambda *argv, **options: run_cli("inspect", *argv, home=tmp_path, **options)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the miniature that a test may damage."""
    return Path(shutil.copytree(bundled_path(), tmp_path / "model"))


def test_the_default_model_is_described(inspect: Inspect) -> None:
    run = inspect()
    assert (run.code, run.err) == (0, "")
    lines = dict(line.split(None, 1) for line in run.out.split("\n\n")[0].splitlines() if line[0] != " ")
    assert lines["model"] == "the bundled miniature"
    assert lines["note"].startswith("a 16M-parameter demonstration model")
    assert lines["family"] == "MiMo-V2.5 kind: fused qkv, vision and audio"
    assert lines["layers"] == "6: 3 global, 3 sliding; 1 dense, 5 MoE"
    assert lines["MTP"] == "3 modules" and lines["towers"] == "vision, audio"
    parts = [line.split()[0] for line in run.out.split("\n\n")[1].splitlines()[2:]]
    assert parts == ["text", "experts", "MTP", "vision", "audio", "audio"]


def test_json_has_the_same_facts(inspect: Inspect) -> None:
    facts = json.loads(inspect("--json").out)
    assert facts["schema"] == 1 and facts["problems"] == [] and facts["notes"] == []
    assert facts["network"]["experts"] == 16 and facts["network"]["sliding_attention"]["window"] == 128
    parts = facts["storage"]["parts"]
    assert facts["storage"]["size_bytes"] == sum(part["size_bytes"] for part in parts)
    assert {name for part in parts for name in part["formats"]} == {"FP8", "BF16", "F32"}
    assert facts["template"]["is_known"] is True
    assert facts["tokenizer"]["added_tokens"] == 32


def test_a_text_only_checkpoint_says_what_is_missing(inspect: Inspect, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    del config["vision_config"], config["audio_config"]
    (model / "config.json").write_text(json.dumps(config))
    facts = json.loads(inspect(str(model), "--json").out)
    assert facts["network"]["towers"] == []
    assert facts["notes"] == [
        "no vision tower: pictures and videos cannot be understood",
        "no audio encoder: sound cannot be understood",
    ]


def test_tensors_that_do_not_fit_are_listed_with_exit_3(inspect: Inspect, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["vocab_size"] += 1
    (model / "config.json").write_text(json.dumps(config))
    run = inspect(str(model))
    assert run.code == 3 and "family" in run.out
    assert "tensor `lm_head.weight`" in run.err
    assert run.err.splitlines()[-1].startswith("mimo: error: ")


@pytest.mark.parametrize("damage", ["config", "shard", "missing"])
def test_a_model_that_cannot_be_read_is_exit_3(inspect: Inspect, model: Path, damage: str) -> None:
    shard = next(model.glob("*.safetensors"))
    if damage == "config":
        (model / "config.json").write_text("{")
    elif damage == "shard":
        shard.write_bytes(shard.read_bytes()[:50])
    else:
        shard.unlink()
    run = inspect(str(model))
    assert (run.code, run.out) == (3, "") and run.err.count("\n") == 1


def test_another_template_is_warned_of(inspect: Inspect, model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages }}")
    run = inspect(str(model))
    assert run.code == 0 and "mimo: warning: the chat template in " in run.err
    assert "differs from the release's template" in run.out


def test_a_tensor_is_dequantised_for_its_range(inspect: Inspect) -> None:
    view = json.loads(inspect("--tensor", QKV, "--json").out)
    assert view["stored_as"] == "FP8" and view["shape"] == [704, 256]
    assert view["scales"] == [QKV + "_scale_inv"]
    assert view["min"] < view["mean"] < view["max"] and view["not_finite"] == 0
    plain = json.loads(inspect("--tensor", "model.norm.weight", "--json").out)
    assert (plain["stored_as"], plain["scales"]) == ("BF16", [])
    scales = json.loads(inspect("--tensor", QKV + "_scale_inv", "--json").out)
    assert scales["stored_as"] == "scales" and scales["min"] > 0


def test_an_unknown_tensor_suggests_the_nearest(inspect: Inspect) -> None:
    run = inspect("--tensor", "model.layer.0.self_attn.qkv_proj.weight")
    assert run.code == 2 and f"TRY: --tensor {QKV}" in run.err


def test_media_are_described_as_the_model_gets_them(inspect: Inspect) -> None:
    picture = json.loads(inspect("--media", str(EXAMPLES / "cat.jpg"), "--json").out)
    assert picture["kind"] == "image" and picture["tokens"] * 4 == picture["patches"]
    film = json.loads(inspect("--media", str(EXAMPLES / "clip.mp4"), "--json").out)
    assert film["kind"] == "video" and film["tokens"] == film["steps"] * film["step_tokens"]
    assert len(film["timestamps"]) == film["steps"] and film["sound_tokens"] > 0
    mute = json.loads(inspect("--media", str(EXAMPLES / "clip.mp4"), "--no-video-audio", "--json").out)
    assert mute["sound_tokens"] == 0
    sound = json.loads(inspect("--media", str(EXAMPLES / "speech.flac"), "--json").out)
    assert sound["kind"] == "audio"
    assert sound["tokens"] == pytest.approx(sound["seconds"] * 6.25, abs=1)


def test_for_people_nothing_stands_without_a_value(inspect: Inspect) -> None:
    for view in (("--media", str(EXAMPLES / "cat.jpg")), ("--tensor", QKV), ("--tensor", "model.norm.weight")):
        lines = inspect(*view).out.splitlines()
        assert lines and all(len(line.split()) > 1 for line in lines)


def test_max_pixels_shrinks_what_the_model_gets(inspect: Inspect) -> None:
    cat = str(EXAMPLES / "cat.jpg")
    whole = json.loads(inspect("--media", cat, "--json").out)
    small = json.loads(inspect("--media", cat, "--max-pixels", "20000", "--json").out)
    assert small["tokens"] < whole["tokens"]


def test_a_prompt_is_rendered_and_cut(inspect: Inspect) -> None:
    view = json.loads(inspect("--prompt", "hi <|im_end|>", "--json").out)
    assert view["text"].endswith("user\nhi <|im_end|><|im_end|><|im_start|>assistant\n")
    assert len(view["ids"]) == len(view["pieces"]) == view["tokens"]
    assert "".join(view["pieces"]) == view["text"]
    assert view["pieces"].count("<|im_end|>") == 2
    run = inspect("--prompt", "hi")
    assert f"{view['ids'][0]:>7}  '<|im_start|>'\n" in run.out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--media", "no.png"), "`no.png` does not exist"),
        (("--media", "x", "--prompt", "y"), "exclude each other"),
        (("one", "two"), "two"),
    ],
)
def test_wrong_input_is_exit_2(inspect: Inspect, argv: tuple[str, ...], message: str) -> None:
    run = inspect(*argv)
    assert (run.code, run.out) == (2, "") and message in run.err


def test_the_model_may_be_named_three_ways(inspect: Inspect, model: Path) -> None:
    named = inspect("model").out
    assert named == inspect("-m", "model").out == inspect(environ={"MIMO_MODEL": "model"}).out
    assert "model      model\n" in named
    other = {"MIMO_MODEL": "/no/such/model"}
    assert named == inspect("-m", "model", environ=other).out == inspect("model", environ=other).out


def test_tensors_of_a_store_are_shown_by_their_official_names(tmp_path: Path) -> None:
    store = str(made_store("miniature", "int4", 32, "int8"))
    for name, stored_as in (
        ("model.layers.1.mlp.experts.2.up_proj.weight", "INT4 g32"),
        ("model.layers.0.self_attn.qkv_proj.weight", "INT8"),
        ("model.norm.weight", "BF16"),
    ):
        packed, source = [
            json.loads(run_cli("inspect", model, "--tensor", name, "--json", home=tmp_path).out)
            for model in (store, str(SOURCES["miniature"]))
        ]
        assert packed["stored_as"] == stored_as and packed["shape"] == source["shape"]
        assert packed["deviation"] == pytest.approx(source["deviation"], rel=0.05)  # int4 keeps the spread
        assert packed["max"] == pytest.approx(source["max"], rel=0.15)  # the largest of its group may be clipped
    run = run_cli("inspect", store, "--tensor", "model.layers.1.mlp.experts.2.up_projj.weight", home=tmp_path)
    assert run.code == 2 and "--tensor model.layers.1.mlp.experts.2.up_proj.weight" in run.err


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_that_are_none_make_no_wrong_json(
    inspect: Inspect, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    damaged = torch.tensor([1.0, wrong, -2.0])
    monkeypatch.setattr("mimo_cli.checkpoint.reader.CheckpointReader.read", lambda *_: damaged)
    view = json.loads(inspect("--tensor", "model.norm.weight", "--json").out, parse_constant=pytest.fail)
    assert view["mean"] is view["deviation"] is view["max"] is None and view["not_finite"] == 1
    assert inspect("--tensor", "model.norm.weight").code == 0
