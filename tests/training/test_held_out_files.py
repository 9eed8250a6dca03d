# ruff: noqa: E402 (the imports below need the training extra)
"""The files of the evaluation: what is written is what the package reads back, media included."""

import json
from pathlib import Path

import numpy as np
import pytest

REASON = "the makers need the training extra (pillow, Hershey-Fonts)"
pytest.importorskip("PIL", reason=REASON)
pytest.importorskip("HersheyFonts", reason=REASON)

from mimo_cli.chat.attachments import MediaOpener
from mimo_cli.evaluation import needle
from mimo_cli.evaluation.item import read_items
from training import held_out_files
from training.data import prose
from training.data.sample import Film, Picture, Sample, Sound
from training.held_out_files import Question, encode_film, encode_picture, encode_sound, write_task

NOISE = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)


def samples() -> list[Question]:
    sound = Sound((0.3 * np.sin(np.arange(16_000) / 9)).astype(np.float32), 16_000)
    film = Film(np.repeat(NOISE[None, :97, :63], 4, 0), 4.0)
    weather = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    call = (("weather", {"city": "Rome"}),)
    return [
        Question(Sample("mixed", (Picture(NOISE), "What is it?"), "noise", system="Be brief."), "what"),
        Question(Sample("mixed", (sound, "Write it down"), "a tone"), "phrase", "noise", "words"),
        Question(Sample("mixed", ("What moves?", film), "nothing", turns=(("Hello", "Hi"),)), "moves"),
        Question(Sample("mixed", ("Rome?",), "", tools=(weather,), tool_calls=call), "call"),
        Question(Sample("mixed", ("?",), "Rain", tools=(weather,), tool_calls=call, tool_results=("rain",)), "result"),
        Question(Sample("mixed", ("2 + 2?",), "4", reasoning="two and two"), "sum"),
    ]


def test_questions_are_read_back_as_they_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out_files, "questions", lambda task: samples())
    size_bytes = write_task(tmp_path, "mixed")
    assert size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    items = {item.kind: item for item in read_items(tmp_path)}
    messages = {kind: item.read(MediaOpener()) for kind, item in items.items()}
    assert [m.role for m in messages["what"]] == ["system", "user"] and messages["what"][1].text == "What is it?"
    assert (items["phrase"].group, items["phrase"].scoring) == ("noise", "words")
    assert [m.role for m in messages["moves"]] == ["user", "assistant", "user"]
    assert items["call"].scoring == "tool_calls" and items["call"].tool_calls[0].arguments == {"city": "Rome"}
    assert [m.role for m in messages["result"]] == ["user", "assistant", "tool"]
    assert items["result"].answers == ("Rain",) and items["sum"].thinking and not items["what"].thinking
    assert messages["moves"][2].media[0].media.grid_thw[0] == 2  # four frames are two temporal steps


def test_equal_questions_give_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out_files, "questions", lambda task: [s for s in samples() if s.kind in ("what", "moves")])
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_task(tmp_path / name, "mixed")
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]


def test_small_plain_pictures_are_png_and_the_rest_jpeg() -> None:
    plain = np.full((96, 96, 3), 200, np.uint8)
    assert encode_picture(plain, False)[1] == "png" and encode_picture(plain, True)[1] == "jpg"
    assert encode_picture(np.full((300, 96, 3), 200, np.uint8), False)[1] == "jpg"
    assert encode_picture(NOISE, False)[1] == "jpg"


def test_sounds_are_small_ogg_or_wav_of_a_rate(tmp_path: Path) -> None:
    sound = Sound((0.3 * np.sin(np.arange(32_000) / 9)).astype(np.float32), 16_000)
    content, ending = encode_sound(sound)
    assert ending == "ogg" and content.startswith(b"OggS") and len(content) < 12_000
    content, ending = encode_sound(sound, 8000)
    assert ending == "wav" and len(content) == pytest.approx(2 * 2 * 8000, abs=100)


def test_a_film_is_an_mp4_of_its_frames() -> None:
    content, ending = encode_film(Film(np.repeat(NOISE[None], 3, 0), 3.0))
    assert ending == "mp4" and content[4:8] == b"ftyp"


def test_a_json_line_holds_no_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out_files, "questions", lambda task: samples()[:1])
    write_task(tmp_path, "mixed")
    line = json.loads((tmp_path / "mixed.jsonl").read_text())
    assert line["messages"][1]["content"][0] == {"type": "image", "path": "0000.jpg"}


def test_needles_are_asked_in_the_words_of_training() -> None:
    from training.data import lookup

    assert needle.NEEDLE.format(number=7) == lookup.NEEDLE.format(x=7) and needle.QUESTION == lookup.NEEDLE_QUESTION
    parts = (prose._WHO, prose._DID, prose._WHAT, prose._WHEN, prose._WEATHER)
    assert parts == (needle.WHO, needle.DID, needle.WHAT, needle.WHEN, needle.WEATHER)
