import json
from pathlib import Path

import pytest

from mimo_cli.commands.subtitles import LineLimits, Segment
from mimo_cli.commands.transcript_files import (
    Targets,
    TranscriptFiles,
    TranscriptStyle,
    parse_formats,
    plan_targets,
)
from mimo_cli.errors import MimoError, UsageError

SEGMENTS = [Segment(0, 2, "Hello there."), Segment(2, 4, ""), Segment(4, 6, "Bye.")]


def test_formats_are_a_list_and_txt_is_text() -> None:
    assert parse_formats("txt") == ("text",)
    assert parse_formats("srt, json,srt") == ("srt", "json")
    with pytest.raises(UsageError, match="no format `doc`"):
        parse_formats("srt,doc")


def test_without_output_everything_goes_to_stdout() -> None:
    assert plan_targets(["a.wav", "b.wav"], ("srt",), None) == [Targets(("srt",))] * 2
    assert plan_targets(["a.wav"], ("srt",), "-") == [Targets(("srt",))]
    with pytest.raises(UsageError, match="2 formats cannot share stdout"):
        plan_targets(["a.wav"], ("srt", "json"), None)


def test_one_transcript_goes_to_the_named_file(tmp_path: Path) -> None:
    assert plan_targets(["a.wav"], ("srt",), f"{tmp_path}/x.srt") == [Targets(("srt",), (tmp_path / "x.srt",))]


@pytest.mark.parametrize(("inputs", "formats"), [(["d/a.wav"], ("text", "srt")), (["a.wav", "b.mp3"], ("text",))])
def test_several_transcripts_make_a_folder(tmp_path: Path, inputs: list[str], formats: tuple[str, ...]) -> None:
    targets = plan_targets(inputs, formats, str(tmp_path / "out"))
    names = [path.name for target in targets for path in target.paths]
    assert names == (["a.txt", "a.srt"] if len(formats) == 2 else ["a.txt", "b.txt"])
    assert (tmp_path / "out").is_dir()


def test_an_existing_folder_or_a_slash_means_a_folder(tmp_path: Path) -> None:
    assert plan_targets(["a.wav"], ("json",), str(tmp_path))[0].paths == (tmp_path / "a.json",)
    assert plan_targets(["-"], ("json",), f"{tmp_path}/new/")[0].paths == (tmp_path / "new" / "stdin.json",)


def test_outputs_of_like_named_inputs_do_not_collide(tmp_path: Path) -> None:
    targets = plan_targets(["talk.wav", "talk.mp3", "x/talk.mp3"], ("text",), str(tmp_path))
    assert [target.paths[0].name for target in targets] == ["talk.wav.txt", "talk.mp3.txt", "talk.mp3-2.txt"]


def test_a_file_cannot_take_several_transcripts(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UsageError, match="is a file, a folder was expected"):
        plan_targets(["a", "b"], ("text",), str(tmp_path / "x"))


def written(format_name: str, style: TranscriptStyle | None = None) -> tuple[list[str], str]:
    """What is on stdout after each segment, and in the end."""
    out: list[str] = []
    files = TranscriptFiles(Targets((format_name,)), "talk.wav", style or TranscriptStyle(), out.append)
    growth = []
    for segment in SEGMENTS:
        files.add(segment)
        growth.append("".join(out))
    files.finish({"duration": 6.0})
    return growth, "".join(out)


def test_text_appears_segment_by_segment() -> None:
    assert written("text") == (["Hello there.\n", "Hello there.\n", "Hello there.\nBye.\n"], "Hello there.\nBye.\n")
    assert written("text", TranscriptStyle(with_times=True))[0][0] == "[00:00:00.000 --> 00:00:02.000] Hello there.\n"


def test_subtitles_are_numbered_across_segments() -> None:
    assert written("srt")[1] == (
        "1\n00:00:00,000 --> 00:00:02,000\nHello there.\n\n2\n00:00:04,000 --> 00:00:06,000\nBye.\n\n"
    )
    assert written("vtt")[1].startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nHello there.\n\n")
    narrow = TranscriptStyle(limits=LineLimits(max_line_width=6, max_line_count=1))
    assert written("srt", narrow)[1].startswith("1\n00:00:00,000 --> 00:00:00,909\nHello\n\n2\n00:00:00,909")


def test_json_comes_at_the_end_and_says_what_its_times_are() -> None:
    growth, text = written("json")
    assert growth == ["", "", ""]
    document = json.loads(text)
    assert document["text"] == "Hello there. Bye."
    assert document["duration"] == 6.0
    assert document["timestamps"].startswith("approximate")
    assert document["segments"][2] == {"start": 4, "end": 6, "text": "Bye."}
    without = json.loads(written("json", TranscriptStyle(with_times=False))[1])
    assert "timestamps" not in without and without["segments"][0] == {"text": "Hello there."}


def test_jsonl_has_a_line_for_each_segment() -> None:
    growth, text = written("jsonl")
    assert [json.loads(line)["text"] for line in text.splitlines()] == ["Hello there.", "", "Bye."]
    assert growth[0].endswith("\n")


def test_files_appear_at_the_end_only(tmp_path: Path) -> None:
    targets = Targets(("text", "srt"), (tmp_path / "a.txt", tmp_path / "a.srt"))
    files = TranscriptFiles(targets, "a.wav", TranscriptStyle(), lambda text: pytest.fail("stdout was used"))
    files.add(SEGMENTS[0])
    assert list(tmp_path.iterdir()) == []
    files.finish({})
    assert (tmp_path / "a.txt").read_text() == "Hello there.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.srt", "a.txt"]


def test_an_unwritable_target_is_named(tmp_path: Path) -> None:
    files = TranscriptFiles(Targets(("text",), (tmp_path / "no" / "a.txt",)), "a", TranscriptStyle(), print)
    with pytest.raises(MimoError, match=r"no/a.txt` cannot be written"):
        files.finish({})


def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        plan_targets(["a.wav"], ("text",), str(tmp_path / "no" / "a.txt"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made: Not a directory"):
        plan_targets(["a.wav"], ("text",), f"{tmp_path}/file/out/")
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UsageError, match="is a folder, a file to write was expected"):
        plan_targets(["a.wav"], ("text",), f"{tmp_path}/")


def test_a_text_whose_file_fails_is_on_stdout(tmp_path: Path) -> None:
    out: list[str] = []
    targets = Targets(("text", "jsonl"), (tmp_path / "no" / "a.txt", tmp_path / "a.jsonl"))
    files = TranscriptFiles(targets, "a", TranscriptStyle(), out.append)
    files.add(SEGMENTS[0])
    with pytest.raises(MimoError, match=r"no/a.txt` cannot be written"):
        files.finish({})
    assert out == ["Hello there.\n"] and (tmp_path / "a.jsonl").exists()
