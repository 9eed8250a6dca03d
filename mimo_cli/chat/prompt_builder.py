"""Messages to a Prompt: render, cut at the template's control tokens, encode the text between, put media in place.

Control tokens come from the template alone. Text of users, tools, tool lists and files is encoded with added tokens
switched off and comes out with the very ids of the faithful rendering otherwise; `raw_special_tokens` gives the
faithful ids, control tokens inside text included. Either way a medium goes where its part stands among the messages.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mimo_cli.chat.messages import MediaPart, Message
from mimo_cli.chat.placeholders import MediaQueue, PromptWriter
from mimo_cli.chat.shield import Piece, Shield, random_mark
from mimo_cli.chat.template import ChatTemplate
from mimo_cli.chat.template_input import check_tool_results
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.processor_config import ProcessorConfig
from mimo_cli.errors import CheckpointError, MimoError, UsageError
from mimo_cli.media.prompt import Prompt

Tools = Sequence[Mapping[str, Any]]

_PAD_FIELDS = {
    "<|image_pad|>": "image_token_id",
    "<|video_pad|>": "video_token_id",
    "<|audio_pad|>": "audio_token_id",
}


class PromptBuilder:
    """Builds prompts for one model. template_options are template variables beside `enable_thinking`."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        processor: ProcessorConfig,
        *,
        raw_special_tokens: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        for text, field in _PAD_FIELDS.items():
            ids = {tokenizer.added_tokens.get(text), getattr(processor, field)} - {None}
            if len(ids) > 1:
                raise CheckpointError(
                    f"`{text}` has two ids, {sorted(ids)}: the tokenizer's and `{field}` of config.json"
                )
        self.tokenizer = tokenizer
        self.template = template
        self.processor = processor
        self.raw_special_tokens = raw_special_tokens
        self.template_options = dict(template_options or {})

    @property
    def is_append_only(self) -> bool:
        """Tell whether a later turn leaves earlier ones as they are; not when old reasoning is taken out."""
        return bool(self.template_options.get("keep_all_reasoning", True))

    def build(
        self,
        messages: Sequence[Message],
        tools: Tools | None = None,
        *,
        thinking: bool = True,
        add_generation_prompt: bool = True,
    ) -> Prompt:
        """Return the prompt for these messages.

        Raises UsageError where they cannot be rendered or where placeholders and media differ in number.
        """
        shield = Shield(self.tokenizer.added_tokens)
        ready = [shield.message(message) for message in messages]
        check_tool_results(ready)
        rendered = self.template.render(
            ready,
            shield.value(tools) if tools else None,
            {**self.template_options, "enable_thinking": thinking},
            add_generation_prompt=add_generation_prompt,
        )
        media = [part for message in messages for part in message.media]
        return self._assemble(shield.split(rendered), media, None)

    def extend(
        self,
        base: Prompt,
        messages: Sequence[Message],
        known: int,
        tools: Tools | None = None,
        *,
        thinking: bool = True,
    ) -> Prompt | None:
        """Return `base` continued: it holds messages[:known], the last of which the model wrote, without its end.

        What follows that answer is found by rendering a mark in its place, so whatever ids the model chose stay as
        they are. None where the template does not print the mark just once: then build the prompt anew.
        """
        mark = random_mark()
        shield = Shield(self.tokenizer.added_tokens)
        answer = {"role": "assistant", "content": mark, "reasoning_content": ""}
        before, after = messages[: known - 1], messages[known:]
        try:
            rendered = self.template.render(
                [*map(shield.message, before), answer, *map(shield.message, after)],
                shield.value(tools) if tools else None,
                {**self.template_options, "enable_thinking": thinking},
                add_generation_prompt=True,
            )
        except MimoError:
            return None
        if rendered.count(mark) != 1:
            return None
        media = [part for message in after for part in message.media]
        return self._assemble(shield.split(rendered.partition(mark)[2]), media, base)

    def _assemble(self, pieces: Sequence[Piece], media: Sequence[MediaPart], base: Prompt | None) -> Prompt:
        writer = PromptWriter(self.tokenizer, self.processor, base)
        queue = MediaQueue(media)
        ids = [self.tokenizer.added_tokens[piece.text] if piece.is_control else None for piece in pieces]
        i = 0
        while i < len(pieces):
            token_id = ids[i]
            found = writer.media_ids.match(ids, i)
            if found:
                kind, i = found
                part = queue.take(kind)
                if part is not None:
                    writer.write_media(part)
                continue
            if token_id is None:
                writer.write_ids(self.tokenizer.encode(pieces[i].text, added_tokens=self.raw_special_tokens))
            elif writer.media_ids.is_pad(token_id):
                raise UsageError(f"the chat template wrote `{pieces[i].text}` outside of its markers")
            else:
                writer.write_ids([token_id])
            i += 1
        queue.check()
        return writer.prompt()
