import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Run, run_cli
from tests.support.fake_engine import STOP, FakeLoader, Script, scripted

EXAMPLES = Path(__file__).parents[2] / "examples"
CAT, SPEECH = str(EXAMPLES / "cat.jpg"), str(EXAMPLES / "speech.flac")

Line = str | type[BaseException] | Callable[[], str]


class TypedLines:
    """Plays the user: types lines (and presses keys) at the prompt, echoed to stderr as a terminal would."""

    def __init__(self, lines: tuple[Line, ...]) -> None:
        self._lines = list(lines)

    def __call__(self, request: Any, terminal: Any) -> "TypedLines":
        self._terminal = terminal
        return self

    def read(self, prompt: str) -> str:
        line = self._lines.pop(0) if self._lines else EOFError
        if isinstance(line, type):
            self._terminal.line(prompt)
            raise line
        text = line if isinstance(line, str) else line()
        self._terminal.line(f"{prompt}{text}")
        return text


Talk = Callable[..., Run]


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Hold a dialogue of typed lines with scripted answers; what is returned is after the header."""
    monkeypatch.chdir(tmp_path)

    def run(*lines: Line, answers: FakeLoader | None = None, argv: tuple[str, ...] = (), **options: Any) -> Run:
        done = run_cli(
            "chat",
            "--color",
            "never",
            *argv,
            home=tmp_path,
            stdin=None,
            terminal=True,
            commands__loading__load_engine=answers or scripted(),
            commands__talk__make_editor=TypedLines(lines),
            **options,
        )
        head, _, rest = done.err.partition("mimo: /help lists the commands, Ctrl-D leaves\n")
        return Run(done.code, done.out, _without_numbers(rest) if rest else head)

    return run


def _without_numbers(text: str) -> str:
    """Take the times out of numbers lines, the only part that differs from run to run."""
    lines = [line for line in text.split("\n") if not line.startswith("prompt ")]
    saved = [line.partition(" --resume ")[0] if line.startswith("mimo: saved; ") else line for line in lines]
    return "\n".join(saved)


def chats(home: Path) -> list[Path]:
    return sorted((home / ".local/state/mimo/chats").glob("*.jsonl"))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_whole_dialogue(talk: Talk, tmp_path: Path) -> None:
    loader = scripted("<think>Greet.</think>\nHello!", "<think>Count.</think>Two.")
    run = talk("hi", "how many?", answers=loader)
    assert run.code == 0
    assert run.out == "Hello!\nTwo.\n"
    assert run.err == ("mimo 0/4k> hi\nGreet.\nmimo 36/4k> how many?\nCount.\nmimo 55/4k> \nmimo: saved; mimo chat\n")
    assert loader.engine is not None
    assert loader.engine.prompts[1].startswith(loader.engine.prompts[0] + "<think>Greet.</think>\nHello!<|im_end|>")
    roles = [line.get("role") for line in lines_of(chats(tmp_path)[0])]
    assert roles == [None, "user", "assistant", "user", "assistant"]


def test_only_what_is_new_is_read(talk: Talk) -> None:
    loader = scripted("One.", "Two.")
    talk("/think off", "first", "second", answers=loader)
    assert loader.engine is not None
    first, second = loader.engine.prompt_ids
    assert second[: len(first)] == first


def test_saved_chats_are_private(talk: Talk, tmp_path: Path) -> None:
    talk("hi", answers=scripted("Hello!"))
    (path,) = chats(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_no_save_writes_nothing(talk: Talk, tmp_path: Path) -> None:
    run = talk("hi", argv=("--no-save",), answers=scripted("Hello!"))
    assert chats(tmp_path) == [] and "saved" not in run.err


def test_an_empty_line_asks_nothing(talk: Talk) -> None:
    assert talk("", "   ").err == "mimo 0/4k> \nmimo 0/4k>    \nmimo 0/4k> \n"


def test_ctrl_c_at_the_prompt_stays_and_ctrl_d_leaves(talk: Talk) -> None:
    assert talk(KeyboardInterrupt, "hi", EOFError, "never", answers=scripted("Hello!")).out == "Hello!\n"


@pytest.mark.parametrize("word", ["/quit", "/bye", "/exit"])
def test_quit_leaves(talk: Talk, word: str) -> None:
    assert talk(word, "never").code == 0


def test_unknown_commands_are_errors_and_two_slashes_are_text(talk: Talk) -> None:
    loader = scripted("Passwords.")
    run = talk("/hlep", "//etc/passwd?", answers=loader)
    assert "mimo: error: there is no command `/hlep`. TRY: /help" in run.err
    assert loader.engine is not None and "user\n/etc/passwd?<|im_end|>" in loader.engine.prompts[0]


def test_help_lists_the_commands(talk: Talk) -> None:
    run = talk("/help")
    assert run.out == "" and "/regen" in run.err and "/image PATH" in run.err


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_stops_the_answer_and_keeps_the_session(talk: Talk) -> None:
    stopped = Script("one two three four five six seven" + STOP, {4: press})
    loader = scripted(stopped, "Fine.")
    run = talk("/think off", "count", "and now?", answers=loader)
    first, last = run.out.splitlines()
    assert first.startswith("one") and "seven" not in first and last == "Fine."
    assert "mimo: stopped; /regen answers again" in run.err
    assert loader.engine is not None
    assert f"<think></think>{first}<|im_end|>" in loader.engine.prompts[1]


def test_ctrl_c_while_the_prompt_is_read_takes_the_message_back(talk: Talk) -> None:
    loader = scripted(Script("never" + STOP, {0: press}), "Fine.")
    run = talk("/think off", "a long question", "short", answers=loader)
    assert run.out == "Fine.\n"
    assert "mimo: stopped; the message was taken back" in run.err
    assert loader.engine is not None and "a long question" not in loader.engine.prompts[1]


def test_ctrl_c_twice_leaves_and_saves_what_is_there(talk: Talk, tmp_path: Path) -> None:
    stopped = Script("one two three four five six seven" + STOP, {4: lambda: (press(), press())})
    run = talk("/think off", "count", "never", answers=scripted(stopped))
    assert run.code == 130
    assert lines_of(chats(tmp_path)[0])[-1]["role"] == "assistant"


def test_hang_up_saves_what_is_there(talk: Talk, tmp_path: Path) -> None:
    stopped = Script("one two three four five" + STOP, {3: lambda: os.kill(os.getpid(), signal.SIGHUP)})
    assert talk("/think off", "count", answers=scripted(stopped)).code == 129
    assert [line.get("role") for line in lines_of(chats(tmp_path)[0])] == [None, "user", "assistant"]


def test_regen_answers_the_same_question_again(talk: Talk, tmp_path: Path) -> None:
    loader = scripted("Heads.", "Tails.")
    run = talk("/think off", "toss", "/regen", answers=loader)
    assert run.out == "Heads.\nTails.\n"
    assert loader.engine is not None and loader.engine.prompts[0] == loader.engine.prompts[1]
    saved = lines_of(chats(tmp_path)[0])
    assert [line["content"][0]["text"] for line in saved[1:]] == ["toss", "Tails."]


def test_regen_that_is_stopped_at_once_keeps_the_old_answer(talk: Talk) -> None:
    loader = scripted("Heads.", Script("Tails." + STOP, {0: press}), "Why?")
    talk("/think off", "toss", "/regen", "go on", answers=loader)
    assert loader.engine is not None and "Heads." in loader.engine.prompts[2]


def test_regen_and_undo_need_something_before_them(talk: Talk) -> None:
    run = talk("/regen", "/undo", "/stats")
    assert run.err.count("mimo: error: there is n") == 3


def test_undo_takes_question_and_answer_back(talk: Talk) -> None:
    loader = scripted("One.", "Two.", "Three.")
    run = talk("/think off", "first", "second", "/undo", "third", answers=loader)
    assert "mimo: taken back: second" in run.err
    assert loader.engine is not None
    assert "first" in loader.engine.prompts[2] and "second" not in loader.engine.prompts[2]


def test_the_prompt_counts_what_the_conversation_takes_not_what_was_read(talk: Talk) -> None:
    run = talk(
        "/think off", "hi", "more", "/undo", "/save chat", "/clear", "/load chat", answers=scripted("One.", "Two.")
    )
    start, off, one, two, undone, saved, cleared, loaded = re.findall(r"mimo (\d+)/4k>", run.err)
    assert (start, off, cleared) == ("0", "0", "0")
    assert 0 < int(one) < int(two) and undone == saved == loaded == one


def test_system_text_is_shown_changed_and_reset(talk: Talk) -> None:
    loader = scripted("Ok.", "Ok.")
    run = talk("/system", "/system Be brief.", "/system", "hi", "/system default", "hi", answers=loader)
    assert "  the default of the chat template\n" in run.err and "  Be brief.\n" in run.err
    assert loader.engine is not None
    assert loader.engine.prompts[0].startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert "You are MiMo" in loader.engine.prompts[1]


def test_thinking_is_switched_bounded_and_hidden(talk: Talk) -> None:
    loader = scripted("<think>Aha.</think>Yes.", "<think>Aha.</think>Yes.", "Yes.")
    run = talk("hi", "/think hide", "hi", "/think off", "hi", "/think 100", "/think", answers=loader)
    assert run.err.count("Aha.") == 1
    assert "  thinking is on, hidden\n" in run.err and "  thinking is off, hidden\n" in run.err
    assert run.err.count("  thinking is on, at most 100 tokens, hidden\n") == 2
    assert loader.engine is not None and loader.engine.prompts[2].endswith("<think></think>")


def test_hidden_thinking_can_be_unfolded_afterwards(talk: Talk) -> None:
    loader = scripted("<think>Aha.</think>Yes.", "<think>Oho.</think>No.")
    run = talk("/think hide", "hi", "/think show", "hi", answers=loader)
    hidden, _, unfolded = run.err.partition("tokens of thinking are hidden; /think show unfolds them\n")
    assert "Aha." not in hidden and unfolded.count("Aha.") == 1 and unfolded.count("Oho.") == 1


def test_settings_are_changed_and_shown(talk: Talk) -> None:
    run = talk("/set temp 0", "/set max_tokens 2k", "/set", "/set temp none", "/set color 3", "/set seed x", "/show")
    assert "  temp          0.0\n" in run.err and "  max_tokens    2048\n" in run.err
    assert "  temp          1.0\n" in run.err
    assert "error: there is no setting `color`. TRY: /set with one of temp, " in run.err
    assert "error: `x` is no value for seed" in run.err
    assert "model the bundled miniature in" in run.err


def test_stats_and_tokens_tell_numbers(talk: Talk) -> None:
    run = talk("/think off", "hi", "/stats", "/tokens", answers=scripted("Hello!"))
    assert "  KV cache " in run.err and "  seed " in run.err
    assert " of 4,096 tokens, 2 messages\n" in run.err


def test_media_and_text_go_with_the_next_message(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("remember\n")
    loader = scripted("A cat.", "Ok.")
    run = talk("/think off", f"/image {CAT}", "/file note.txt", "what?", "more?", answers=loader)
    assert f"mimo: {CAT} (image, " in run.err
    assert "mimo: note.txt (9 characters) goes before the next message" in run.err
    assert loader.engine is not None
    first, second = loader.engine.prompts
    assert first.index("<|vision_start|>") < first.index("note.txt:\nremember\n\nwhat?<|im_end|>")
    assert second.count("<|vision_start|>") == 1


def test_a_dragged_in_medium_is_attached(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "my cat.jpg").write_bytes(Path(CAT).read_bytes())
    loader = scripted("A cat.")
    dragged = str(tmp_path / "my\\ cat.jpg")
    run = talk("/think off", f"{dragged} '{SPEECH}' what?", answers=loader)
    assert run.err.count("goes with the next message") == 2
    assert loader.engine is not None and "my cat" not in loader.engine.prompts[0]
    assert "<|mimo_audio_end|>what?<|im_end|>" in loader.engine.prompts[0]


def test_what_cannot_be_attached_is_an_error_and_the_dialogue_goes_on(talk: Talk) -> None:
    run = talk("/image no.png", f"/image {SPEECH}", "/image", "/think off", "hi", answers=scripted("Hello!"))
    assert run.out == "Hello!\n" and run.err.count("mimo: error: ") == 3


def test_a_model_without_towers_takes_no_media(talk: Talk) -> None:
    run = talk(f"/image {CAT}", answers=scripted(has_media=False))
    assert "error: model the bundled miniature takes no image: it lacks that tower" in run.err


def test_flags_bring_attachments_to_the_first_message(talk: Talk) -> None:
    loader = scripted("A cat.")
    talk("/think off", "what?", argv=("--image", CAT), answers=loader)
    assert loader.engine is not None and "<|vision_start|>" in loader.engine.prompts[0]


def test_a_message_that_does_not_fit_is_refused_and_forgotten(talk: Talk) -> None:
    loader = scripted("Hello!")
    run = talk("/think off", "long " * 500, "hi", argv=("-c", "128"), answers=loader)
    assert "mimo: error: the prompt has " in run.err
    assert run.out == "Hello!\n"
    assert loader.engine is not None and "long" not in loader.engine.prompts[0]


def test_clear_begins_a_new_conversation_in_a_new_file(talk: Talk, tmp_path: Path) -> None:
    loader = scripted("One.", "Two.")
    talk("/think off", "first", "/clear", "second", argv=("-s", "Be brief."), answers=loader)
    assert loader.engine is not None
    assert "first" not in loader.engine.prompts[1] and "Be brief." in loader.engine.prompts[1]
    assert len(chats(tmp_path)) == 2


def test_save_and_load_carry_a_conversation_over(talk: Talk, tmp_path: Path) -> None:
    talk("/think off", f"/image {CAT}", "what?", "/save mine.jsonl", answers=scripted("A cat."))
    loader = scripted("Grey.")
    run = talk("/think off", "/load mine.jsonl", "which colour?", answers=loader)
    assert "mimo: 1 question from mine.jsonl\nA cat.\n" in run.err
    assert loader.engine is not None
    assert "<|vision_start|>" in loader.engine.prompts[0] and "A cat.<|im_end|>" in loader.engine.prompts[0]


def test_resume_and_continue_reopen_saved_dialogues(talk: Talk, tmp_path: Path) -> None:
    talk("/think off", "first", answers=scripted("One."))
    (path,) = chats(tmp_path)
    for argv in (("--continue",), ("--resume", path.stem)):
        loader = scripted("Two.")
        talk("/think off", "second", argv=argv, answers=loader)
        assert loader.engine is not None and "first" in loader.engine.prompts[0]
    assert chats(tmp_path) == [path]
    run = talk(argv=("--resume", "nothing"))
    assert run.code == 2 and f"TRY: mimo chat --resume {path.stem}" in run.err


def test_a_dialogue_that_cannot_be_saved_goes_on(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("a file where the folder should be")
    run = talk("/think off", "hi", "again", answers=scripted("One.", "Two."))
    assert run.out == "One.\nTwo.\n"
    assert run.err.count("mimo: warning: the dialogue is not saved") == 1


def test_a_mute_terminal_without_a_question_opens_no_dialogue(tmp_path: Path) -> None:
    run = run_cli("chat", home=tmp_path, stdin=None, terminal=False)
    assert run.code == 2 and "there is no question" in run.err


def test_ctrl_c_between_the_last_word_and_the_file_loses_no_answer(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mimo_cli.commands.talk.ending_note", press)  # asked for after showing, before saving
    assert talk("hi", answers=scripted("Hello!")).out == "Hello!\n"
    (path,) = chats(tmp_path)
    assert "Hello!" in path.read_text("utf-8")


def test_ctrl_c_in_the_middle_of_a_command_ends_that_command_only(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mimo_cli.chat.attachments.MediaOpener.open", interrupted)
    assert talk(f"/image {CAT}", "/think off", "hi", answers=scripted("Hello!")).out == "Hello!\n"


def test_what_the_system_refuses_ends_no_dialogue(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "note.txt")

    monkeypatch.setattr("mimo_cli.commands.talk.read_text_file", refused)
    run = talk("/file note.txt", "/think off", "hi", answers=scripted("Hello!"))
    assert run.out == "Hello!\n" and "mimo: error: `note.txt`: Permission denied. TRY: " in run.err


def test_a_message_that_is_taken_back_leaves_its_attachments(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("remember\n")
    attached = ("/think off", f"/image {CAT}", "/file note.txt")
    stopped = scripted(Script("never" + STOP, {0: press}), "A cat.")
    run = talk(*attached, "what?", "and this?", answers=stopped)
    assert run.err.count("mimo: the 2 attachments wait for the next message; /clear ") == 1
    refused = scripted("A cat.")
    run = talk(*attached, "long " * 2000, "and this?", argv=("-c", "1k"), answers=refused)
    assert run.err.count("mimo: the 2 attachments wait for the next message; /clear ") == 1
    for loader in (stopped, refused):
        assert loader.engine is not None
        prompt = loader.engine.prompts[-1]
        assert prompt.count("<|vision_start|>") == 1 and "note.txt:\nremember\n\nand this?" in prompt
