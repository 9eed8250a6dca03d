"""Tables for people. In a pipe they are plain text that is never cut to a width nobody has."""

import io
import shutil
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mimo_cli.terminal.console import Terminal

_PIPE_COLUMNS = 400


def write_table(
    terminal: Terminal, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]
) -> None:
    """Write a table to stdout; `numbers` are the indices of columns that are set flush right."""
    width = shutil.get_terminal_size().columns if terminal.out_is_terminal else _PIPE_COLUMNS
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in numbers else "left", no_wrap=not terminal.out_is_terminal)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    terminal.write("".join(line.rstrip() + "\n" for line in text.splitlines() if line.strip()))


def write_pairs(terminal: Terminal, pairs: Sequence[tuple[str, str]]) -> None:
    """Write lines of a name and its value to stdout, the values in one column."""
    width = max((len(name) for name, _ in pairs), default=0)
    terminal.write("".join(f"{name:<{width}}  {value}".rstrip() + "\n" for name, value in pairs))
