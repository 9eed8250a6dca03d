"""The chat template: which one a model uses, and messages to prompt text with it.

A template in the model's folder wins; without one there is ours for MiMo-V2.5 (`mimo_v2_5.jinja`). Templates known by
their hash are rendered in this process, all others in a child with limits. Source: chat specification, sections 1 to 4.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from mimo_cli.chat.jinja_sandbox import RenderFailure, render
from mimo_cli.chat.template_child import RenderLimits, render_in_child
from mimo_cli.chat.template_input import check_tool_results, template_messages, template_tools
from mimo_cli.checkpoint.config import read_json
from mimo_cli.errors import CheckpointError, MimoError, UsageError

RELEASE_SHA256 = "3134ac101acd29d3ab41297707cc1a85699f5f0acb283fdeb0681e3750998403"
"""The template of MiMo-V2.5 as published, which `mimo_v2_5.jinja` equals in every rendering."""

BUILT_IN = "the built-in MiMo-V2.5 template"


@dataclass(frozen=True)
class ChatTemplate:
    """A template's text and where it came from (a path, or BUILT_IN)."""

    text: str
    source: str

    @classmethod
    def built_in(cls) -> "ChatTemplate":
        """Return our template for MiMo-V2.5."""
        return cls((resources.files("mimo_cli.chat") / "mimo_v2_5.jinja").read_text("utf-8"), BUILT_IN)

    @classmethod
    def from_folder(cls, folder: Path) -> "ChatTemplate":
        """Find the template of a model: `chat_template.jinja`, else `tokenizer_config.json`, else the built-in one.

        Only the folder itself is looked at: `audio_tokenizer/` holds a template of something else.
        """
        path = folder / "chat_template.jinja"
        if path.is_file():
            try:
                return cls(path.read_text("utf-8"), str(path))
            except (OSError, UnicodeDecodeError) as err:
                raise CheckpointError(f"`{path}` cannot be read: {err}", hint="fetch that file again") from err
        path = folder / "tokenizer_config.json"
        if path.is_file():
            text = _configured(read_json(path), path)
            if text is not None:
                return cls(text, str(path))
        return cls.built_in()

    @cached_property
    def sha256(self) -> str:
        """Hash of the text in UTF-8, as hexadecimal digits."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def is_known(self) -> bool:
        """Tell whether this is the release's template or ours; another one may deserve a warning."""
        return self.sha256 == RELEASE_SHA256 or self.text == ChatTemplate.built_in().text

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = False,
        limits: RenderLimits | None = None,
    ) -> str:
        """Render messages to the prompt's text, faithfully: nothing is escaped.

        options are the template's own variables (`enable_thinking`, `keep_all_reasoning`, ...). Raises UsageError for
        messages that cannot be rendered, CheckpointError for a template that is broken, forbidden or too expensive.
        """
        variables = {
            **(options or {}),
            "messages": template_messages(messages),
            "tools": template_tools(tools),
            "add_generation_prompt": add_generation_prompt,
        }
        limits = limits or RenderLimits()
        try:
            if self.is_known:
                return render(self.text, variables, limits.max_chars(_text_size(variables)))
            return render_in_child(self.text, variables, limits)
        except RenderFailure as err:
            raise self._error(err) from err

    def _error(self, failure: RenderFailure) -> MimoError:
        if failure.kind == "refused":
            return UsageError(f"the chat template refuses these messages: {failure}")
        if failure.kind == "failed":
            return UsageError(f"the chat template in `{self.source}` cannot render these messages: {failure}")
        what = {"syntax": "is not valid", "forbidden": "does something forbidden", "limit": "was stopped"}[failure.kind]
        return CheckpointError(
            f"the chat template in `{self.source}` {what}: {failure}",
            hint="fetch that file again; without a template in the model's folder the built-in one is used",
        )


def render_chat(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    enable_thinking: bool = True,
    add_generation_prompt: bool = False,
    **template_options: Any,
) -> str:
    """Render messages with the MiMo-V2.5 template, byte for byte as the release does; needs no model.

    messages and tools are OpenAI-style dicts; media parts become placeholders. Text that looks like a control token is
    not escaped. Raises UsageError for messages that cannot be rendered.
    """
    check_tool_results(messages)
    options = {**template_options, "enable_thinking": enable_thinking}
    return ChatTemplate.built_in().render(messages, tools, options, add_generation_prompt=add_generation_prompt)


def _configured(config: Any, path: Path) -> str | None:
    """Take the template out of a tokenizer_config.json: a string, or a list of named ones with a `default`."""
    entry = config.get("chat_template") if isinstance(config, Mapping) else None
    if isinstance(entry, list):
        named = {item.get("name"): item.get("template") for item in entry if isinstance(item, Mapping)}
        entry = named.get("default")
    if entry is not None and not isinstance(entry, str):
        raise CheckpointError(f"`{path}`: `chat_template` must be text, found {type(entry).__name__}")
    return entry


def _text_size(variables: Mapping[str, Any]) -> int:
    try:
        return len(json.dumps(variables))
    except (TypeError, ValueError, RecursionError) as err:
        raise UsageError(f"messages and tools must hold JSON values only: {err}") from None
