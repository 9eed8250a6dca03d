from typing import Any

import pytest

from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.messages import Generated, ImagePart, Message
from mimo_cli.chat.prompt_builder import PromptBuilder
from mimo_cli.chat.reply import ReplyReader
from mimo_cli.chat.template import ChatTemplate
from mimo_cli.media.prompt import Prompt
from tests.support.fake_media import fake_image
from tests.support.tiny_tokenizer import processor_for, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
END = TOKENIZER.added_tokens["<|im_end|>"]
PICTURE = ImagePart(fake_image())
TOOLS = [{"name": "f", "parameters": {"properties": {"b": {"type": "boolean"}}}}]


def builder(template: str | None = None, **options: Any) -> PromptBuilder:
    chosen = ChatTemplate(template, "test") if template else ChatTemplate.built_in()
    return PromptBuilder(TOKENIZER, chosen, processor_for(TOKENIZER), template_options=options)


BUILDER = builder()


def letters(text: str) -> tuple[int, ...]:
    """Cut text into single letters, as no encoder would; tags stay whole."""
    return tuple(i for letter in text for i in TOKENIZER.encode(letter, added_tokens=False))


def answer_of(*ids: int, thinking: bool = True, tools: Any = None) -> Message:
    reader = ReplyReader(TOKENIZER, {END}, tools, thinking=thinking)
    for token_id in (*ids, END):
        reader.push(token_id)
    return reader.finish()[-1].message  # type: ignore[union-attr]


def turn(
    conversation: Conversation, question: str | Message, ids: tuple[int, ...], with_builder=BUILDER, **kwargs: Any
) -> Prompt:
    """Ask, answer with these ids, and return the prompt that was answered."""
    conversation.add(question if isinstance(question, Message) else Message.of("user", question))
    prompt = conversation.prompt(with_builder, thinking=kwargs.get("thinking", True))
    conversation.answered(prompt, answer_of(*ids, **kwargs))
    return prompt


def next_prompt(conversation: Conversation, with_builder=BUILDER) -> Prompt:
    conversation.add(Message.of("user", "next"))
    return conversation.prompt(with_builder)


FIRST, SECOND = letters("<think>so</think>Yes"), letters("No")


def test_the_next_prompt_begins_with_every_id_so_far() -> None:
    conversation = Conversation()
    first = turn(conversation, Message.of("user", PICTURE, "a?"), FIRST)
    second = turn(conversation, "b?", SECOND)
    third = next_prompt(conversation)
    assert second.ids[: len(first) + len(FIRST)] == first.ids + FIRST
    assert third.ids[: len(second) + len(SECOND)] == second.ids + SECOND
    assert third.ids[len(second) + len(SECOND)] == END
    assert third.spans == first.spans and third.items == (PICTURE.media,)


def test_the_text_is_that_of_the_whole_rendering() -> None:
    conversation = Conversation([Message.of("system", "Be brief.")])
    turn(conversation, "a?", letters("Yes"), thinking=False)
    turn(conversation, "b?", FIRST)
    prompt = next_prompt(conversation)
    assert TOKENIZER.decode(prompt.ids) == TOKENIZER.decode(BUILDER.build(conversation.messages).ids)


def test_an_answer_spelt_otherwise_than_the_template_would_stays() -> None:
    # The template writes True for a boolean argument; the model wrote true, and its ids are in the KV cache.
    call = "<tool_call><function=f><parameter=b>true</parameter></function></tool_call>"
    ids = tuple(TOKENIZER.encode(call, added_tokens=True))
    conversation = Conversation(tools=TOOLS)
    first = turn(conversation, "do", ids, tools=TOOLS)
    assert conversation.messages[-1].tool_calls[0].arguments == {"b": True}
    conversation.add(Message.of("tool", "done"))
    second = conversation.prompt(BUILDER)
    assert second.ids[: len(first) + len(ids)] == first.ids + ids
    assert TOKENIZER.decode(second.ids[len(first) + len(ids) :]).startswith(
        "<|im_end|><|im_start|>tool\n<tool_response>\ndone"
    )


def test_undo_goes_back_to_before_the_question() -> None:
    conversation = Conversation()
    first = turn(conversation, "a?", FIRST)
    turn(conversation, "b?", SECOND)
    undone = conversation.undo()
    assert undone == Message.of("user", "b?") and len(conversation.messages) == 2
    assert next_prompt(conversation).ids[: len(first) + len(FIRST)] == first.ids + FIRST
    assert Conversation().undo() is None


def test_undo_takes_a_whole_tool_loop_back() -> None:
    conversation = Conversation()
    turn(conversation, "a?", FIRST)
    conversation.add(Message.of("user", "b?"), Message.of("assistant", "x"), Message.of("tool", "y"))
    conversation.undo()
    assert len(conversation.messages) == 2


def test_a_retracted_answer_leaves_the_same_prompt() -> None:
    conversation = Conversation()
    turn(conversation, "a?", FIRST)
    second = turn(conversation, "b?", SECOND)
    assert conversation.retract_answer() == answer_of(*SECOND)
    assert conversation.retract_answer() is None
    assert conversation.prompt(BUILDER) == second


def test_another_system_text_or_tool_list_starts_anew() -> None:
    conversation = Conversation()
    turn(conversation, "a?", FIRST)
    conversation.set_system("Be kind.")
    assert conversation.system == "Be kind."
    prompt = next_prompt(conversation)
    assert TOKENIZER.decode(prompt.ids).startswith("<|im_start|>system\nBe kind.<|im_end|>")
    conversation.set_tools(TOOLS)
    assert "# Tools" in TOKENIZER.decode(conversation.prompt(BUILDER).ids) and conversation.tools == TOOLS
    conversation.set_system(None)
    assert conversation.system is None and conversation.messages[0].role == "user"


def test_answers_keep_their_ids_even_after_a_new_beginning() -> None:
    conversation = Conversation()
    turn(conversation, "a?", FIRST)
    conversation.set_system("Be kind.")
    prompt = next_prompt(conversation)
    assert any(prompt.ids[i : i + len(FIRST)] == FIRST for i in range(len(prompt)))


def test_clear_keeps_the_system_text() -> None:
    conversation = Conversation([Message.of("system", "Be brief.")])
    turn(conversation, "a?", FIRST)
    conversation.clear()
    assert conversation.messages == (Message.of("system", "Be brief."),)


def test_another_builder_builds_another_timeline() -> None:
    conversation = Conversation()
    turn(conversation, "a?", FIRST)
    other = builder("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    # The answer stands as the model wrote it; only what comes before and after is the other template's.
    assert TOKENIZER.decode(next_prompt(conversation, other).ids) == "[a?]<think>so</think>Yes][next]"


def test_without_append_only_rendering_the_prompt_is_built_whole() -> None:
    forgetful = builder(keep_all_reasoning=False)
    conversation = Conversation()
    turn(conversation, "a?", tuple(TOKENIZER.encode("<think>so</think>Yes", added_tokens=True)), forgetful)
    assert "<think></think>Yes" in TOKENIZER.decode(next_prompt(conversation, forgetful).ids)


def test_a_loaded_conversation_gets_its_timeline_back() -> None:
    conversation = Conversation()
    turn(conversation, "a?", FIRST, thinking=False)
    turn(conversation, "b?", SECOND)
    again = Conversation(conversation.messages)
    assert next_prompt(again) == next_prompt(conversation)


def test_answers_from_elsewhere_have_no_ids_and_are_encoded() -> None:
    conversation = Conversation([Message.of("user", "a?"), Message.of("assistant", "Yes")])
    assert next_prompt(conversation) == BUILDER.build(conversation.messages)


def test_an_interrupted_answer_without_a_token_can_be_followed() -> None:
    conversation = Conversation()
    first = turn(conversation, "a?", ())
    assert conversation.messages[-1].generated == Generated((), True)
    assert next_prompt(conversation).ids[: len(first) + 1] == (*first.ids, END)


@pytest.mark.parametrize("count", [1, 5])
def test_every_turn_only_adds_ids(count: int) -> None:
    conversation = Conversation()
    before: tuple[int, ...] = ()
    for number in range(count):
        prompt = turn(conversation, f"question {number}", letters(f"answer {number}"))
        assert prompt.ids[: len(before)] == before
        before = prompt.ids + letters(f"answer {number}")
