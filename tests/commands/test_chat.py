import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mimo_cli.chat.chat_file import save_conversation
from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.messages import Message
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.commands.chat import attachments_in_order
from mimo_cli.commands.options import AttachmentOptions
from mimo_cli.miniature.bundled import bundled_path
from tests.support.cli import Run, run_cli
from tests.support.fake_engine import STOP, FakeLoader, Script, scripted

HEADER = """\
mimo: a 16M-parameter demonstration model, not MiMo-V2.5; give the release's folder with -m DIR
mimo: model the bundled miniature, computed in bfloat16, kernels: avx512, 2 threads
mimo: placement: RAM (5 MB of weights)
mimo: context 4k tokens, KV cache up to 4.1 MB
mimo: lossy: nothing
"""
EXAMPLES = Path(__file__).parents[2] / "examples"

Ask = Callable[..., Run]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run `mimo chat` against scripted answers."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, answers: FakeLoader | None = None, **options: Any) -> Run:
        loader = answers or scripted("<think>Easy.</think>\nHello!")
        return run_cli("chat", *argv, home=tmp_path, commands__loading__load_engine=loader, **options)

    return run


def test_the_answer_alone_is_on_stdout_and_the_header_on_stderr(ask: Ask) -> None:
    assert ask("hi") == Run(0, "Hello!\n", HEADER)


def test_quiet_leaves_the_answer_only(ask: Ask) -> None:
    assert ask("-q", "hi") == Run(0, "Hello!\n", "")


def test_words_need_no_quotes_and_no_command(ask: Ask, tmp_path: Path) -> None:
    loader = scripted("Fine.")
    run = run_cli("how", "are", "you?", "-q", home=tmp_path, commands__loading__load_engine=loader)
    assert run == Run(0, "Fine.\n", "")
    assert loader.engine is not None and "how are you?<|im_end|>" in loader.engine.prompts[0]


def test_piped_text_comes_before_the_question(ask: Ask) -> None:
    loader = scripted("Looks good.")
    assert ask("review", "this", "-q", stdin=b"+ a line\n", answers=loader).out == "Looks good.\n"
    assert loader.engine is not None
    assert "<|im_start|>user\n+ a line\n\nreview this<|im_end|>" in loader.engine.prompts[0]


def test_on_a_terminal_thinking_is_dim_on_stderr_and_numbers_follow(ask: Ask) -> None:
    run = ask("--color", "never", "hi", stdin=None, terminal=True)
    assert run.out == "Hello!\n"
    thinking, numbers = run.err.removeprefix(HEADER).splitlines()
    assert thinking == "Easy."
    assert numbers.startswith("prompt ") and " | think 7 | answer " in numbers and numbers.endswith("/4k")
    colored = ask("hi", stdin=None, terminal=True)
    assert "\x1b[2mE" in colored.err and "\x1b[" not in colored.out


@pytest.mark.parametrize(("flags", "shown"), [(("--show-thinking", "no"), False), (("--show-thinking", "yes"), True)])
def test_showing_of_thinking_can_be_forced(ask: Ask, flags: tuple[str, ...], shown: bool) -> None:
    assert ("Easy." in ask(*flags, "hi").err) is shown
    assert ("Easy." in ask(*flags, "--color", "never", "hi", stdin=None, terminal=True).err) is shown


def test_usage_gives_numbers_off_a_terminal(ask: Ask) -> None:
    assert "prompt " in ask("--usage", "hi").err
    assert "prompt " not in ask("hi").err


def test_no_think_says_so_to_the_model(ask: Ask) -> None:
    loader = scripted("Hello!")
    ask("--no-think", "hi", answers=loader)
    assert loader.engine is not None and loader.engine.prompts[0].endswith("assistant\n<think></think>")


def test_system_text_comes_from_the_flag_or_a_file(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "sys.txt").write_text("Be brief.\n")
    for value in ("Be brief.", "@sys.txt"):
        loader = scripted("Ok.")
        ask("-s", value, "hi", answers=loader)
        assert loader.engine is not None
        assert loader.engine.prompts[0].startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_json_holds_everything(ask: Ask) -> None:
    run = ask("--json", "--seed", "7", "hi")
    assert run.err == HEADER.splitlines(keepends=True)[0]
    document = json.loads(run.out)
    assert run.out.count("\n") == 1
    assert document["schema"] == 1
    assert (document["content"], document["reasoning"]) == ("\nHello!", "Easy.")
    assert document["finish_reason"] == "stop"
    assert document["tool_calls"] == [] and document["lossy"] == [] and document["notes"] == []
    assert document["seed"] == 7
    assert document["model"]["is_miniature"] is True
    usage = document["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["reasoning_tokens"] < usage["completion_tokens"]
    assert document["timings"]["prompt_s"] == 0.25


TOOLS = [{"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]
CALL = "<tool_call>\n<function=weather>\n<parameter=city>Oslo</parameter>\n</function>\n</tool_call>"


def test_tool_calls_are_shown_not_run(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps({"tools": TOOLS}))
    run = ask("--tools", "tools.json", "-q", "weather?", answers=scripted("I look." + CALL))
    assert run.out == 'I look.\n{"tool_call": {"name": "weather", "arguments": {"city": "Oslo"}}}\n'
    document = json.loads(ask("--tools", "tools.json", "--json", "weather?", answers=scripted(CALL)).out)
    assert document["finish_reason"] == "tool_calls"
    assert document["tool_calls"] == [{"name": "weather", "arguments": {"city": "Oslo"}}]


@pytest.mark.parametrize(("content", "complaint"), [("{", "is not JSON"), ("[1]", "holds no list of tools")])
def test_bad_tool_files_are_named(ask: Ask, tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "tools.json").write_text(content)
    run = ask("--tools", "tools.json", "hi")
    assert (run.code, run.out) == (2, "") and f"mimo: error: `tools.json` {complaint}" in run.err


def test_output_file_takes_the_answer_whole(ask: Ask, tmp_path: Path) -> None:
    assert ask("-q", "-o", "out.md", "hi") == Run(0, "", "")
    assert (tmp_path / "out.md").read_text() == "Hello!\n"
    assert ask("-q", "--json", "-o", "out.json", "hi").out == ""
    assert json.loads((tmp_path / "out.json").read_text())["content"] == "\nHello!"


def test_a_cut_answer_is_a_note_or_on_request_a_failure(ask: Ask) -> None:
    note = "mimo: warning: the answer was cut after 3 tokens by --max-tokens 3\n"
    run = ask("-n", "3", "--no-think", "hi", answers=scripted("one two three four"))
    assert run.code == 0 and run.err == HEADER + note
    again = ask("-n", "3", "--no-think", "--fail-on-length", "hi", answers=scripted("one two three four"))
    assert (again.code, again.out) == (6, run.out)


def test_an_answer_that_fills_the_context_says_so(ask: Ask) -> None:
    run = ask("-c", "64", "hi", answers=scripted(Script("x")))
    assert run.code == 0 and "the context of 64 tokens is full; --ctx enlarges it" in run.err


def test_a_prompt_that_does_not_fit_is_refused(ask: Ask) -> None:
    run = ask("-c", "64", "long " * 100)
    assert (run.code, run.out) == (2, "")
    assert run.err.splitlines()[-1].startswith("mimo: error: the prompt has ")


def test_stop_text_ends_the_answer_before_it(ask: Ask) -> None:
    run = ask("-q", "--stop", "END", "--stop", "three", "hi", answers=scripted("one two three END"))
    assert run == Run(0, "one two \n", "")


def test_think_budget_forces_the_answer(ask: Ask) -> None:
    loader = scripted("<think>" + "well " * 200 + "</think>So be it.")
    document = json.loads(ask("--json", "--think-budget", "20", "hi", answers=loader).out)
    assert document["content"] == "So be it."
    assert 20 <= document["usage"]["reasoning_tokens"] <= 22


def test_looping_thought_is_ended_with_a_warning(ask: Ask) -> None:
    loop = "we could try the first way again or else the second way, hm. "
    run = ask("hi", answers=scripted("<think>" + loop * 20 + "</think>Done."))
    assert run.out == "Done.\n"
    assert "mimo: warning: the reasoning repeated itself and was ended" in run.err


def test_an_endlessly_looping_answer_is_stopped(ask: Ask) -> None:
    loop = "we could try the first way again or else the second way, hm. "
    guarded = ask("--no-think", "-c", "2400", "hi", answers=scripted(loop * 250))
    assert guarded.code == 0
    assert "mimo: warning: the answer went on repeating itself and was stopped" in guarded.err
    failed = ask("--no-think", "-c", "2400", "--fail-on-length", "hi", answers=scripted(loop * 250))
    assert failed.code == 6
    free = ask("--no-think", "-c", "2400", "--no-loop-guard", "hi", answers=scripted(loop * 250))
    assert "context of 2,400 tokens is full" in free.err and "repeat" not in free.err
    assert len(free.out) > len(guarded.out)


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_ctrl_c_while_answering_keeps_the_partial_text_and_exits_130(ask: Ask) -> None:
    answer = Script("one two three four five six" + STOP, {3: press})
    run = ask("-q", "--no-think", "hi", answers=scripted(answer))
    assert run.code == 130
    assert run.out.startswith("one") and run.out.endswith("\n") and "six" not in run.out
    assert run.err == ""


def test_ctrl_c_while_thinking_brings_the_answer(ask: Ask) -> None:
    answer = Script("<think>" + "well " * 100 + "</think>Yes." + STOP, {20: press})
    run = ask("-q", "hi", answers=scripted(answer))
    assert (run.code, run.out) == (0, "Yes.\n")


def test_ctrl_c_twice_quits_at_once(ask: Ask) -> None:
    answer = Script("<think>" + "well " * 100 + "</think>Yes." + STOP, {20: lambda: (press(), press())})
    assert ask("-q", "hi", answers=scripted(answer)) == Run(130, "", "")


def test_ctrl_c_while_reading_the_prompt_exits_130(ask: Ask) -> None:
    assert ask("-q", "hi", answers=scripted(Script("Yes." + STOP, {0: press}))) == Run(130, "", "")


def test_sigterm_ends_the_run_and_closes_the_engine(ask: Ask) -> None:
    loader = scripted(Script("one two three" + STOP, {2: lambda: press(signal.SIGTERM)}))
    run = ask("-q", "--no-think", "hi", answers=loader)
    assert run.code == 143 and run.out.startswith("one")
    assert loader.engine is not None and loader.engine.is_closed


def test_timeout_stops_with_its_own_code(ask: Ask) -> None:
    import time

    answer = Script("one two three" + STOP, {2: lambda: time.sleep(5)})
    run = ask("-q", "--no-think", "--timeout", "1s", "hi", answers=scripted(answer))
    assert run.code == 6
    assert run.err == "mimo: error: stopped: the time of --timeout is over. TRY: a longer --timeout, or --max-tokens\n"


def test_media_stand_before_the_text_in_the_order_given(ask: Ask) -> None:
    loader = scripted("A cat.")
    cat, speech = str(EXAMPLES / "cat.jpg"), str(EXAMPLES / "speech.flac")
    run = ask("-q", "--audio", speech, "--image", cat, "-a", speech, "and?", answers=loader)
    assert run == Run(0, "A cat.\n", "")
    assert loader.engine is not None
    prompt = loader.engine.prompts[0]
    starts = [
        prompt.index("<|mimo_audio_start|>"),
        prompt.index("<|vision_start|>"),
        prompt.rindex("<|mimo_audio_start|>"),
    ]
    assert starts == sorted(starts) and starts[2] < prompt.index("and?")


def test_order_of_flags_is_kept_and_other_sources_follow() -> None:
    options = AttachmentOptions(image=["1.png", "3.png"], audio=["2.wav"], video=["env.mp4"])
    order = ["quiet", "image", "audio", "temp", "image"]
    assert [item.source for item in attachments_in_order(options, order)] == ["1.png", "2.wav", "3.png", "env.mp4"]


def test_a_picture_on_stdin_is_seen(ask: Ask) -> None:
    loader = scripted("A cat.")
    run = ask("-q", "what is it?", stdin=(EXAMPLES / "cat.jpg").read_bytes(), answers=loader)
    assert run.out == "A cat.\n"
    assert loader.engine is not None and "<|vision_start|>" in loader.engine.prompts[0]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "there is no question: neither words, nor text on stdin, nor media. TRY: mimo chat"),
        (("--image", "no.png", "hi"), "`no.png` does not exist"),
        (("--image", "{speech}", "hi"), "is a recording, not a picture. TRY: attach it with --audio"),
        (("--image", "empty.png", "hi"), "empty"),
        (("--image", "https://example.org/cat.png", "hi"), "TRY: add --allow-net"),
        (("-f", "no.txt", "hi"), "`no.txt` does not exist"),
        (("-f", "{cat}", "hi"), "is an image file, not text. TRY: attach it with --image"),
        (("--temp", "hot", "hi"), "'--temp'"),
        (("--ctx", "lots", "hi"), "count `lots` is not a whole number"),
        (("--top-p", "2", "hi"), "'--top-p'"),
        (("--no-such-flag", "hi"), "no such option: --no-such-flag"),
        (("--max-pixels", "0", "--image", "{cat}", "hi"), "pixel"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(ask: Ask, tmp_path: Path, argv: tuple[str, ...], message: str) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    named = [word.format(cat=EXAMPLES / "cat.jpg", speech=EXAMPLES / "speech.flac") for word in argv]
    run = ask(*named)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("mimo: error: ") and run.err.count("\n") == 1
    assert message in run.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/folder", "model `no/such/folder` is neither a folder nor a name under"),
        (".", "holds no config.json, so it is no model"),
    ],
)
def test_a_missing_model_is_exit_3(ask: Ask, name: str, message: str) -> None:
    run = ask("-m", name, "hi")
    assert (run.code, run.out) == (3, "")
    assert message in run.err


def test_the_model_may_come_from_variable_or_settings(ask: Ask, tmp_path: Path) -> None:
    assert "`/from/env`" in ask("hi", environ={"MIMO_MODEL": "/from/env"}).err
    (tmp_path / "mimo.toml").write_text('model = "/from/file"\n[chat]\nthink = false\n')
    assert "`/from/file`" in ask("hi").err
    assert "`/from/env`" in ask("hi", environ={"MIMO_MODEL": "/from/env"}).err
    assert "`/from/flag`" in ask("-m", "/from/flag", "hi", environ={"MIMO_MODEL": "/from/env"}).err


def test_settings_change_what_the_flags_would(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "mimo.toml").write_text("quiet = true\n[chat]\nthink = false\nmax-tokens = 2\n")
    loader = scripted("one two three")
    run = ask("hi", answers=loader)
    assert loader.engine is not None and loader.engine.prompts[0].endswith("<think></think>")
    assert run.err == "" and len(run.out.split()) <= 2
    (tmp_path / "mimo.toml").write_text("tmep = 1\n")
    assert ask("hi").err == "mimo: error: `mimo.toml` sets `tmep`, which is no option. TRY: mimo config\n"


def test_damaged_media_make_no_traceback(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes((EXAMPLES / "cat.jpg").read_bytes()[:3000])
    (tmp_path / "cut.mp4").write_bytes((EXAMPLES / "clip.mp4").read_bytes()[:3000])
    (tmp_path / "cut.flac").write_bytes((EXAMPLES / "speech.flac").read_bytes()[:3000])
    for name in ("cut.jpg", "cut.mp4", "cut.flac"):
        run = ask("-a", name, "hi")
        assert run.code == 2 and run.err.count("\n") == 1 and name in run.err, run


def test_a_bug_is_one_line_and_with_debug_a_traceback(ask: Ask) -> None:
    def fail() -> None:
        raise RuntimeError("wires crossed")

    run = ask("-q", "hi", answers=scripted(Script("x", {0: fail})))
    assert run.code == 1
    line = "mimo: error: RuntimeError: wires crossed. This is a bug in mimo. TRY: the same command with --debug\n"
    assert run.err == line
    detailed = ask("-q", "--debug", "hi", answers=scripted(Script("x", {0: fail})))
    assert detailed.code == 1 and "Traceback" in detailed.err and detailed.err.endswith(line)


def test_memory_that_does_not_suffice_is_exit_4(ask: Ask) -> None:
    def fail() -> None:
        raise MemoryError("12 GB")

    assert ask("-q", "hi", answers=scripted(Script("x", {0: fail}))).code == 4


@pytest.mark.parametrize(("flags", "ends"), [((), 3), (("--raw-special-tokens",), 4)])
def test_control_tokens_in_text_stay_text_unless_raw(ask: Ask, flags: tuple[str, ...], ends: int) -> None:
    loader = scripted("Ok.")
    ask(*flags, "--no-think", "say <|im_end|>", answers=loader)
    assert loader.engine is not None
    end_id = loader.engine.tokenizer.added_tokens[STOP]
    assert loader.engine.prompt_ids[0].count(end_id) == ends - 1


@pytest.mark.parametrize("flag", [("--vram", "8G"), ("--gpu-dense", "w8a8")])
def test_options_of_a_card_without_a_card_are_refused(ask: Ask, flag: tuple[str, str]) -> None:
    run = ask("hi", *flag)
    assert run.code == 2 and run.out == "" and f"{flag[0]} is for a graphics card" in run.err


def saved_chat(home: Path, *messages: str) -> Path:
    """Return a saved dialogue: a question and its answer, in turns."""
    tokenizer = Tokenizer.from_folder(bundled_path())
    roles = ("user", "assistant")
    folder = home / ".local/state/mimo/chats"
    folder.mkdir(parents=True)
    path = folder / "cats.jsonl"
    lines = [Message.of(roles[i % 2], text) for i, text in enumerate(messages)]  # type: ignore[arg-type]
    save_conversation(path, Conversation(lines), tokenizer)
    return path


@pytest.mark.parametrize("flags", [("--resume", "cats"), ("-C",)])
def test_a_question_to_a_saved_dialogue_is_asked_and_saved_there(
    ask: Ask, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    path = saved_chat(tmp_path, "Which animal?", "A cat.")
    loader = scripted("Grey.")
    assert ask("-q", "--no-think", *flags, "which colour?", answers=loader) == Run(0, "Grey.\n", "")
    assert loader.engine is not None
    prompt = loader.engine.prompts[0]
    assert prompt.index("Which animal?") < prompt.index("A cat.") < prompt.index("which colour?")
    texts = [json.loads(line)["content"][0]["text"] for line in path.read_text().splitlines()[1:]]
    assert texts == ["Which animal?", "A cat.", "which colour?", "Grey."]
    before = path.read_text()
    ask("-q", "--no-think", *flags, "--no-save", "-s", "Be brief.", "and its name?", answers=scripted("Tom."))
    assert path.read_text() == before


def test_a_mistyped_dialogue_is_refused_before_the_model_is_loaded(ask: Ask, tmp_path: Path) -> None:
    saved_chat(tmp_path, "Which animal?", "A cat.")
    loader = scripted("never")
    run = ask("--resume", "cast", "and?", answers=loader)
    assert run.code == 2 and run.err.endswith("TRY: mimo chat --resume cats\n")
    assert loader.engine is None


def test_an_output_that_cannot_be_written_costs_nothing(ask: Ask, tmp_path: Path) -> None:
    loader = scripted("never")
    run = ask("-o", "missing/dir/a.txt", "hi", answers=loader)
    assert (run.code, run.out) == (2, "") and "there is no folder" in run.err and "TRY: mkdir -p" in run.err
    assert loader.engine is None


def test_an_answer_whose_file_fails_is_on_stdout(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    answer = Script("Hello!" + STOP, {1: (tmp_path / "out").rmdir})
    run = ask("-q", "--no-think", "-o", "out/a.md", "hi", answers=scripted(answer))
    assert (run.code, run.out) == (1, "Hello!\n") and "cannot be written" in run.err


def test_a_dash_as_output_is_stdout(ask: Ask, tmp_path: Path) -> None:
    assert ask("-q", "-o", "-", "hi") == Run(0, "Hello!\n", "")
    assert list(tmp_path.glob("-*")) == []


def test_tool_calls_are_in_the_file_as_on_stdout(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps({"tools": TOOLS}))
    for text in ("I look.", ""):
        argv = ("--tools", "tools.json", "-q", "weather?")
        ask("-o", "out.md", *argv, answers=scripted(text + CALL))
        assert (tmp_path / "out.md").read_text() == ask(*argv, answers=scripted(text + CALL)).out


def test_a_timeout_delivers_what_there_is(ask: Ask, tmp_path: Path) -> None:
    import time

    def late() -> FakeLoader:
        return scripted(Script("one two three" + STOP, {2: lambda: time.sleep(60)}))

    path = saved_chat(tmp_path, "Count.", "Gladly.")
    argv = ("-q", "--no-think", "--timeout", "2s", "-C", "go on")
    run = ask(*argv, "--json", answers=late())
    document = json.loads(run.out)
    assert run.code == 6 and document["content"].startswith("one") and document["finish_reason"] == "cancelled"
    assert document["notes"] == ["the answer was stopped by --timeout"]
    assert json.loads(path.read_text().splitlines()[-1])["content"][0]["text"] == document["content"]
    run = ask(*argv, "-o", "out.md", answers=late())
    assert (run.code, run.out) == (6, "") and (tmp_path / "out.md").read_text() == document["content"].strip() + "\n"


def test_what_mimo_config_prints_can_be_kept_as_the_settings_of_a_project(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "mimo.toml").write_text(run_cli("config", home=tmp_path).out)
    assert ask("-q", "hi") == Run(0, "Hello!\n", "")
