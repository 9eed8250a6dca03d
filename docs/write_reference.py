"""Write docs/reference/ from the program itself: the commands' help and the public Python names with their docstrings.

Run by `make docs`; a test fails when what is stored is not what this would write.
"""

import ast
import inspect
import os
import textwrap
from pathlib import Path
from typing import Any

from mimo_cli import api
from mimo_cli.app import overall_help
from mimo_cli.commands.registry import ENTRIES, load_command

REFERENCE = Path(__file__).with_name("reference")
_COLUMNS = "100"
_NOTE = "<!-- Written by `make docs`; do not edit. -->\n"


def commands_page() -> str:
    """Return the page of commands: the help of `mimo`, then all options of each command."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _COLUMNS  # help is wrapped to the terminal's width
    try:
        helps = [("mimo", overall_help())]
        for entry in ENTRIES:
            path = f"mimo {entry.name}"
            helps.append((path, load_command(entry.name).help_text(path, everything=True)))
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    sections = [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in helps]
    return "\n".join(["# Commands\n", _NOTE, *sections])


def python_page() -> str:
    """Return the page of the Python interface: signatures and docstrings of what `mimo_cli` exports."""
    sections = []
    for name in sorted(api.__all__):
        item = getattr(api, name)
        sections.append(_section(f"## mimo_cli.{name}", item))
        if inspect.isclass(item):
            members = [(key, value) for key, value in vars(item).items() if not key.startswith("_")]
            documented = [(key, _function(value)) for key, value in members]
            sections += [_section(f"### {name}.{key}", value) for key, value in documented if value is not None]
    introduction = inspect.cleandoc(api.__doc__ or "")
    return "\n".join(["# Python interface\n", _NOTE, _fenced(introduction), *sections])


def _fenced(text: str) -> str:
    """Keep a docstring's lines as they are: it holds an example or a table."""
    return f"```text\n{text}\n```\n"


def _function(member: Any) -> Any:
    """Return the function behind a public member of a class that has a docstring, None for anything else."""
    wrapped = getattr(member, "fget", None) or getattr(member, "func", None) or member
    return wrapped if inspect.isfunction(wrapped) and wrapped.__doc__ else None


def _section(title: str, item: Any) -> str:
    text = inspect.cleandoc(item.__doc__ or "")
    if inspect.isclass(item):
        return f"{title}\n\n{_fenced(text)}"
    return f"{title}\n\n```python\n{_signature(item)}\n```\n\n{text}\n"


def _signature(function: Any) -> str:
    """Return the signature as the source has it: objects print their types differently from one Python to the next."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(node, ast.FunctionDef):
        raise TypeError(f"`{function}` is no function")
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){result}"


def pages() -> dict[str, str]:
    """Return file name -> content of every page."""
    return {"commands.md": commands_page(), "python.md": python_page()}


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for file_name, text in pages().items():
        (REFERENCE / file_name).write_text(text, "utf-8")
