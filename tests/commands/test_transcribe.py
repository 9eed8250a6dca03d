import functools
import json
import threading
import wave
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimo_cli.commands.interrupts import Terminated
from mimo_cli.commands.transcription import INSTRUCTION, SpeechTask, language_name
from mimo_cli.errors import MediaError
from tests.support.cli import Run, run_cli
from tests.support.fake_engine import FakeLoader, Script, scripted

EXAMPLES = Path(__file__).parents[2] / "examples"
SPEECH, CLIP = str(EXAMPLES / "speech.flac"), str(EXAMPLES / "clip.mp4")

Transcribe = Callable[..., Run]


@pytest.fixture
def transcribe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Transcribe:
    """Run `mimo transcribe` with one scripted answer for each clip."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, answers: FakeLoader, **options: Any) -> Run:
        return run_cli("transcribe", *argv, home=tmp_path, commands__loading__load_engine=answers, **options)

    return run


def write_tones(path: Path, *seconds: float, gap_s: float = 3.0) -> Path:
    """Write a recording of loud stretches with silence between them, 16 kHz mono."""
    rate = 16_000
    pieces = []
    for length_s in seconds:
        times = np.arange(int(rate * length_s)) / rate
        pieces += [0.3 * np.sin(2 * np.pi * 440 * times), np.zeros(int(rate * gap_s))]
    samples = (np.concatenate(pieces[:-1]) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def test_text_is_on_stdout_and_the_request_is_the_familys_own(transcribe: Transcribe) -> None:
    loader = scripted("Good morning.")
    assert transcribe("-q", SPEECH, answers=loader) == Run(0, "Good morning.\n", "")
    assert loader.engine is not None
    assert loader.engine.prompts[0].endswith(
        f"<|mimo_audio_end|>{INSTRUCTION}<|im_end|><|im_start|>assistant\n<think></think>"
    )


def test_each_clip_is_a_request_of_its_own_with_its_times(transcribe: Transcribe, tmp_path: Path) -> None:
    write_tones(tmp_path / "two.wav", 4, 4)
    loader = scripted("One.", "Two.")
    run = transcribe("-q", "-f", "json", "two.wav", answers=loader)
    document = json.loads(run.out)
    assert document["text"] == "One. Two."
    assert document["file"] == "two.wav" and document["duration"] == pytest.approx(11.0, abs=0.01)
    assert document["timestamps"].startswith("approximate")
    first, second = document["segments"]
    assert first["start"] == 0 and 4 <= first["end"] <= 7
    assert 4 <= second["start"] <= 7 and second["end"] == pytest.approx(11.0, abs=0.01)
    assert loader.engine is not None and "One." not in loader.engine.prompts[1]


def test_subtitles_stream_cue_by_cue(transcribe: Transcribe, tmp_path: Path) -> None:
    write_tones(tmp_path / "two.wav", 4, 4)
    run = transcribe("-q", "-f", "srt", "--no-vad", "--chunk", "6s", "two.wav", answers=scripted("One.", "Two."))
    blocks = run.out.split("\n\n")
    assert blocks[0].startswith("1\n00:00:00,000 --> 00:00:0") and blocks[0].endswith("\nOne.")
    assert blocks[1].startswith("2\n") and blocks[1].endswith(" --> 00:00:11,000\nTwo.")


def test_several_formats_go_to_a_folder(transcribe: Transcribe, tmp_path: Path) -> None:
    run = transcribe("-q", "-f", "txt,srt,vtt,json,jsonl", "-o", "out", SPEECH, answers=scripted("Good morning."))
    assert run == Run(0, "", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "speech.json",
        "speech.jsonl",
        "speech.srt",
        "speech.txt",
        "speech.vtt",
    ]
    assert (tmp_path / "out" / "speech.txt").read_text() == "Good morning.\n"
    assert (tmp_path / "out" / "speech.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> ")


def test_stdin_and_the_sound_of_videos_are_heard(transcribe: Transcribe) -> None:
    run = transcribe("-q", "-", answers=scripted("From a pipe."), stdin=Path(SPEECH).read_bytes())
    assert run.out == "From a pipe.\n"
    assert transcribe("-q", CLIP, answers=scripted("From a film.")).out == "From a film.\n"


def test_addresses_are_fetched_where_that_is_allowed(transcribe: Transcribe) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=EXAMPLES))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/speech.flac"
    try:
        refused = transcribe("-q", address, answers=scripted("Good."))
        allowed = transcribe("-q", "--allow-net", address, answers=scripted("Good."), environ={"no_proxy": "127.0.0.1"})
    finally:
        server.shutdown()
        server.server_close()
    assert refused.code == 2 and "TRY: add --allow-net" in refused.err
    assert (allowed.code, allowed.out) == (0, "Good.\n")


def test_raw_samples_on_stdin_need_their_format(transcribe: Transcribe) -> None:
    samples = (np.sin(np.arange(16_000) / 10) * 9000).astype("<i2").tobytes()
    run = transcribe("-q", "-", "--stdin-format", "s16le:16000:1", answers=scripted("Hm."), stdin=samples)
    assert run == Run(0, "Hm.\n", "")
    assert transcribe("-q", "-", answers=scripted(), stdin=samples).code == 2


def test_only_the_part_asked_for_is_read(transcribe: Transcribe, tmp_path: Path) -> None:
    write_tones(tmp_path / "two.wav", 4, 4)
    run = transcribe("-q", "-f", "jsonl", "--start", "8s", "--end", "00:10", "two.wav", answers=scripted("Two."))
    segment = json.loads(run.out)
    assert (segment["start"], segment["end"], segment["text"]) == (8, 10, "Two.")


def test_language_translation_and_terms_are_asked_for(transcribe: Transcribe) -> None:
    loader = scripted("Guten Morgen.")
    transcribe("-l", "en", "--translate", "de", "--prompt", "Xiaomi, MiMo", SPEECH, answers=loader)
    assert loader.engine is not None
    assert "into German" in loader.engine.prompts[0] and "Xiaomi, MiMo" in loader.engine.prompts[0]
    assert "is English" in loader.engine.prompts[0]


def test_languages_have_names_and_unknown_ones_stand_for_themselves() -> None:
    assert language_name("pt-BR") == "Portuguese"
    assert language_name("Klingon") == "Klingon"
    assert SpeechTask().instruction == INSTRUCTION


def test_loops_are_cut_with_a_warning(transcribe: Transcribe) -> None:
    loader = scripted("Right. " + "and so we went home " * 40)
    run = transcribe(SPEECH, answers=loader)
    assert run.out == "Right. and so we went home\n"
    assert "mimo: warning: " in run.err and "repeats were cut from the text from 0 s to 7 s" in run.err


def test_text_that_runs_on_is_bounded(transcribe: Transcribe) -> None:
    words = " ".join(str(n) for n in range(2000))
    run = transcribe(SPEECH, "-c", "8192", answers=scripted(words))
    assert run.code == 0 and len(run.out) < 1500
    assert "ran on and was cut" in run.err


def test_several_files_are_named_on_stderr_only(transcribe: Transcribe) -> None:
    run = transcribe(SPEECH, CLIP, answers=scripted("One.", "Two."))
    assert run.out == "One.\nTwo.\n"
    assert f"mimo: {SPEECH}\n" in run.err and f"mimo: {CLIP}\n" in run.err


def test_some_bad_files_make_exit_5_with_a_list(transcribe: Transcribe, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    run = transcribe("-q", "bad.wav", SPEECH, "no.wav", answers=scripted("Good."))
    assert (run.code, run.out) == (5, "Good.\n")
    assert run.err.count("mimo: error: ") == 2
    assert run.err.count("no.wav") == 2 and "`no.wav` does not exist. TRY: check the path" in run.err
    assert run.err.endswith("mimo: 2 of 3 failed: bad.wav, no.wav\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "there is nothing to transcribe"),
        (("no.wav",), "`no.wav` does not exist"),
        (("empty.wav",), "empty"),
        (("notes.txt",), "notes.txt"),
        ((str(EXAMPLES / "cat.jpg"),), "cat.jpg"),
        (("-f", "doc", SPEECH), "there is no format `doc`"),
        (("-f", "srt,vtt", SPEECH), "2 formats cannot share stdout"),
        (("--chunk", "soon", SPEECH), "time `soon` is not a duration"),
        (("--chunk", "1s", SPEECH), "clips must be 2 to 60 s long"),
        (("--start", "9s", "--end", "5s", SPEECH), "the start must come first"),
        (("--start", "1h", SPEECH), "ends at"),
        (("-",), "standard input"),
    ],
)
def test_wrong_input_is_one_error_and_exit_2(
    transcribe: Transcribe, tmp_path: Path, argv: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no sound\n")
    run = transcribe("-q", *argv, answers=scripted("x"))
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("mimo: error: ") and run.err.count("\n") == 1 and message in run.err


def test_a_deaf_model_says_so(transcribe: Transcribe) -> None:
    run = transcribe(SPEECH, answers=scripted("x", has_media=False))
    assert run.code == 2 and "cannot hear: it has no audio encoder" in run.err


def test_silence_has_no_text(transcribe: Transcribe, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "mute.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 80_000, "NONE", ""))
        file.writeframes(bytes(160_000))
    run = transcribe("-f", "json", "mute.wav", answers=scripted("x"))
    assert run.code == 0 and json.loads(run.out)["segments"] == []


def test_ctrl_c_keeps_what_was_written(transcribe: Transcribe, tmp_path: Path) -> None:
    def press() -> None:
        raise KeyboardInterrupt

    write_tones(tmp_path / "two.wav", 4, 4)
    run = transcribe("-q", "two.wav", answers=FakeLoader([*scripted("One.").scripts, Script("x", {0: press})]))
    assert run == Run(130, "One.\n", "")


def test_verbose_tells_the_speed(transcribe: Transcribe) -> None:
    run = transcribe("-v", SPEECH, answers=scripted("Good."))
    assert " x real time\n" in run.err


@pytest.mark.parametrize(
    ("stop", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143), (MediaError("the sound breaks off"), 2)]
)
def test_what_was_written_down_before_the_end_came_is_kept(
    transcribe: Transcribe, tmp_path: Path, stop: BaseException, code: int
) -> None:
    def end() -> None:
        raise stop

    write_tones(tmp_path / "two.wav", 4, 4)
    loader = FakeLoader([*scripted("One.").scripts, Script("x", {0: end})])
    run = transcribe("-q", "-f", "text,json", "-o", "out", "two.wav", answers=loader)
    assert (run.code, run.out) == (code, "")
    assert (tmp_path / "out" / "two.txt").read_text() == "One.\n"
    document = json.loads((tmp_path / "out" / "two.json").read_text())
    reached_s = document["segments"][-1]["end"]
    assert document["text"] == "One." and document["notes"][0].startswith(f"ended early, at {reached_s:.1f} s")
    assert f"is in `out/two.txt` and `out/two.json`, up to second {reached_s:.0f} of 11\n" in run.err
