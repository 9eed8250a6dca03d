"""Answers under way, with a model that says what the test wrote: events, stops, interrupts, and what is remembered."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mimo_cli.api import Engine
from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.events import Event, Finished, Notice, TextDelta, ToolCallEvent
from mimo_cli.chat.messages import Message
from mimo_cli.dialogue import Answer, Dialogue, Speaker, StopText, TurnOptions
from mimo_cli.engine.sampling import Sampler, SamplingParams
from tests.support.engines import miniature_engine

MODEL = Engine(miniature_engine())
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the model write a text (control tokens included), then its end; the network runs as always."""

    def script(text: str, end: bool = True) -> None:
        ids = MODEL.tokenizer.encode(text, added_tokens=True)
        ids += [MODEL.tokenizer.added_tokens["<|im_end|>"]] if end else []
        left: Iterator[int] = iter(ids)
        monkeypatch.setattr(Sampler, "choose", lambda sampler, logits: next(left))

    return script


def dialogue(*questions: str, tools: list[Any] | None = None) -> Dialogue:
    messages = [Message.of("user", question) for question in questions or ("Hello",)]
    return Dialogue(MODEL.speaker, Conversation(messages, tools), context_tokens=2048)


def texts(events: list[Event], kind: str) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.kind == kind)


def test_reasoning_and_answer_are_told_apart(says: Any) -> None:
    says("<think>Let me see.</think>\nA cat.")
    talk = dialogue()
    answer = talk.answer()
    events = list(answer)
    assert texts(events, "reasoning") == "Let me see." and texts(events, "content") == "\nA cat."
    finished = events[-1]
    assert isinstance(finished, Finished) and finished.finish_reason == "stop" and answer.finished is finished
    assert talk.conversation.messages[-1] is finished.message
    assert answer.reasoning_tokens == finished.usage.reasoning_tokens > 0


def test_the_next_turn_keeps_everything_the_cache_holds(says: Any) -> None:
    talk = dialogue()
    says("<think>Hm.</think>One.")
    first = talk.answer()
    list(first)
    talk.conversation.add(Message.of("user", "And then?"))
    says("Two.")
    second = talk.answer()
    list(second)
    # All of the first turn but its last token, which never entered the cache.
    assert second.stats.cached_tokens == first.stats.prompt_tokens + first.stats.generated_tokens - 1
    assert [message.text for message in talk.conversation.messages] == ["Hello", "One.", "And then?", "Two."]


def test_regenerating_reads_nothing_again(says: Any) -> None:
    talk = dialogue()
    says("One, two, three, four, five, six, seven, eight, nine, ten.")
    list(talk.answer())
    talk.conversation.retract_answer()
    says("Another.")
    again = talk.answer()
    list(again)
    assert again.stats.cached_tokens == again.stats.prompt_tokens


def test_a_thinking_budget_ends_the_reasoning(says: Any) -> None:
    says("<think>one two three four five six seven eight nine ten" + "</think>The answer.", end=True)
    talk = dialogue()
    answer = talk.answer(TurnOptions(think_budget_tokens=4))
    for _ in zip(range(3), answer, strict=False):
        pass
    assert answer.is_thinking or answer.reasoning_tokens
    events = [*answer]
    assert talk.conversation.messages[-1].generated.ids.count(MODEL.tokenizer.added_tokens["</think>"]) >= 1
    assert isinstance(events[-1], Finished) and events[-1].usage.reasoning_tokens <= 6


def test_the_user_can_end_the_reasoning(says: Any) -> None:
    says("<think>" + "on and on " * 30)
    answer = dialogue().answer(TurnOptions(sampling=SamplingParams(max_tokens=12)))
    next(answer)
    assert answer.is_thinking
    answer.end_thinking()
    events = list(answer)
    assert not answer.is_thinking and texts(events, "content")


def test_the_user_can_stop_an_answer_and_what_is_there_is_kept(says: Any) -> None:
    says("One two three four five six seven eight.")
    talk = dialogue()
    answer = talk.answer()
    shown = [next(answer), next(answer)]
    last = answer.stop()
    finished = last[-1]
    assert isinstance(finished, Finished) and finished.finish_reason == "cancelled"
    assert texts([*shown, *last], "content") == finished.message.text == talk.conversation.messages[-1].text
    assert list(answer) == [] and answer.stop() == []


def test_stopping_before_the_first_token_leaves_no_empty_answer() -> None:
    talk = dialogue()
    (finished,) = talk.answer().stop()
    assert finished.finish_reason == "cancelled" and finished.usage.completion_tokens == 0
    assert [message.role for message in talk.conversation.messages] == ["user"]


def test_an_interrupted_answer_goes_on(says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    says("One two three four.")
    answer, original, calls = dialogue().answer(), torch.nn.Module.__call__, [0]

    def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] in (4, 9, 10):
            raise KeyboardInterrupt
        return original(module, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", call)
    events: list[Event] = []
    interrupts = 0
    while not (events and isinstance(events[-1], Finished)):
        try:
            events.append(next(answer))
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts >= 2 and texts(events, "content") == "One two three four."


def test_a_stop_text_ends_the_answer_and_is_not_shown(says: Any) -> None:
    says("One, two END three.")
    talk = dialogue()
    events = list(talk.answer(TurnOptions(stop_texts=("END",))))
    assert texts(events, "content") == "One, two " == talk.conversation.messages[-1].text
    assert events[-1].finish_reason == "stop"
    assert talk.conversation.messages[-1].generated is None  # its ids go further than its text


def test_a_stop_text_that_never_completes_is_shown(says: Any) -> None:
    says("One, two EN")
    events = list(dialogue().answer(TurnOptions(stop_texts=("END",))))
    assert texts(events, "content") == "One, two EN"


def test_stop_texts_do_not_end_the_reasoning(says: Any) -> None:
    says("<think>END of thought</think>Fine.")
    events = list(dialogue().answer(TurnOptions(stop_texts=("END",))))
    assert texts(events, "reasoning") == "END of thought" and texts(events, "content") == "Fine."


def test_max_tokens_cut_the_answer(says: Any) -> None:
    says("One two three four five.")
    events = list(dialogue().answer(TurnOptions(sampling=SamplingParams(max_tokens=3))))
    assert events[-1].finish_reason == "length" and events[-1].usage.completion_tokens == 3


def test_a_full_context_cuts_the_answer(says: Any) -> None:
    says("One two three four five six seven.")
    talk = dialogue()
    prompt = talk.conversation.prompt(MODEL.speaker.builder)
    talk = Dialogue(MODEL.speaker, talk.conversation, context_tokens=len(prompt) + 2)
    events = list(talk.answer())
    assert events[-1].finish_reason == "context" and events[-1].usage.completion_tokens == 3


def test_tool_calls_come_whole(says: Any) -> None:
    says("<tool_call>\n<function=weather>\n<parameter=city>Rome</parameter>\n</function>\n</tool_call>")
    events = list(dialogue(tools=[WEATHER]).answer())
    calls = [event.call for event in events if isinstance(event, ToolCallEvent)]
    assert [(call.name, dict(call.arguments)) for call in calls] == [("weather", {"city": "Rome"})]
    assert events[-1].finish_reason == "tool_calls"


def test_a_stop_id_of_the_caller_ends_the_answer_and_is_not_shown(says: Any) -> None:
    first, second = MODEL.tokenizer.encode("One, two.", added_tokens=False)[:2]
    says("One, two.")
    events = list(dialogue().answer(TurnOptions(sampling=SamplingParams(stop_ids=(second,)))))
    assert texts(events, "content").encode() == MODEL.tokenizer.token_bytes(first)
    assert events[-1].finish_reason == "stop" and events[-1].usage.completion_tokens == 2


def test_a_stop_text_behind_a_tool_call_keeps_the_call(says: Any) -> None:
    call = "<tool_call>\n<function=weather>\n<parameter=city>Rome</parameter>\n</function>\n</tool_call>"
    says("Let me look. " + call + "\nEND" + call)
    talk = dialogue(tools=[WEATHER])
    events = list(talk.answer(TurnOptions(stop_texts=("END",))))
    calls = tuple(event.call for event in events if isinstance(event, ToolCallEvent))
    assert len(calls) == 1 and talk.conversation.messages[-1].tool_calls == calls
    assert events[-1].finish_reason == "tool_calls"


def test_reasoning_that_repeats_itself_is_ended_and_told(says: Any) -> None:
    block = "we should look at it once more and then once again, because "
    says("<think>" + block * 8 + "</think>Done.")
    answer = dialogue().answer()
    events = list(answer)
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices == ["the reasoning repeated itself and was ended"]
    count = len(MODEL.tokenizer.encode(block * 8, added_tokens=False))
    assert answer.reasoning_tokens < count


def test_an_answer_that_repeats_itself_is_told_once_unless_nobody_asks(says: Any) -> None:
    text = "and the same again, word for word, as it was said before and before, " * 8
    says(text)
    notices = [event for event in dialogue().answer() if isinstance(event, Notice)]
    assert [notice.text for notice in notices] == ["the answer repeats itself"]
    says(text)
    assert not [e for e in dialogue().answer(TurnOptions(loop_guard=False)) if isinstance(e, Notice)]


def test_an_answer_that_repeats_itself_after_its_reasoning_did_is_told_as_well(says: Any) -> None:
    block = "we should look at it once more and then once again, because "
    says("<think>" + block * 8 + "and the same again, word for word, as it was said before and before, " * 8)
    notices = [event.text for event in dialogue().answer() if isinstance(event, Notice)]
    assert notices == ["the reasoning repeated itself and was ended", "the answer repeats itself"]


def test_the_models_own_rules_are_added_to_the_sampling() -> None:
    speaker: Speaker = MODEL.speaker
    answer: Answer = dialogue().answer(TurnOptions(sampling=SamplingParams(stop_ids=(1,), banned_ids=(2,))))
    params = answer._generation.params
    assert set(params.stop_ids) == {1, *speaker.stop_ids} and set(params.banned_ids) == {2, *speaker.banned_ids}
    assert speaker.banned_ids and max(speaker.banned_ids) < MODEL.config.vocab_size


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_stop_texts_are_found_however_the_text_is_cut(size: int) -> None:
    text, stop = "a ENDE b EN c END d", StopText(["END d", "EN c"])
    shown = "".join(stop.feed(text[i : i + size]) for i in range(0, len(text), size)) + stop.finish()
    assert shown == stop.text == "a ENDE b " and stop.is_hit


def test_empty_stop_texts_stop_nothing() -> None:
    stop = StopText(["", ""])
    assert stop.feed("anything") + stop.finish() == "anything" and not stop.is_hit
