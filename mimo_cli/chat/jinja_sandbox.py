"""Rendering one chat template as transformers does: the jinja environment, its filters, and what went wrong.

Knows nothing of models or folders. The sandbox keeps a template from attributes and files, `max_chars` from endless
output; a template that only burns time or memory is stopped by the child process around this (`template_child`).
Source: chat specification, section 3.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

FailureKind: TypeAlias = Literal["syntax", "forbidden", "refused", "failed", "limit"]


class RenderFailure(Exception):
    """A template could not be rendered.

    kind: `syntax` (not a template), `forbidden` (stopped by the sandbox), `refused` (it called raise_exception),
    `failed` (an error inside, such as an undefined value), `limit` (output, time or memory).
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


class _Refusal(Exception):
    """What `raise_exception` inside a template raises."""


class _GenerationBlock(Extension):
    """Accept `{% generation %}`, with which templates mark the assistant's text for training; it prints its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads a plain class attribute)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Drop the tags and keep what is between them."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(template_text: str, variables: Mapping[str, Any], max_chars: int) -> str:
    """Render a template with these variables. Raises RenderFailure; output past max_chars is one."""
    pieces: list[str] = []
    length = 0
    try:
        for piece in _compile(template_text).generate(**variables):
            pieces.append(piece)
            length += len(piece)
            if length > max_chars:
                raise RenderFailure("limit", f"it wrote more than {max_chars:,} characters")
    except _Refusal as err:
        raise RenderFailure("refused", str(err)) from None
    except TemplateSyntaxError as err:
        raise RenderFailure("syntax", f"line {err.lineno}: {err.message}") from err
    except SecurityError as err:
        raise RenderFailure("forbidden", str(err)) from err
    except (MemoryError, OverflowError, RecursionError) as err:
        raise RenderFailure("limit", f"it needs too much memory ({type(err).__name__})") from err
    except RenderFailure:
        raise
    except Exception as err:  # whatever an arbitrary template does with arbitrary messages
        raise RenderFailure("failed", f"{type(err).__name__}: {err}") from err
    return "".join(pieces)


@lru_cache(maxsize=8)
def _compile(template_text: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(template_text)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: jinja's own filter would escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise _Refusal(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
