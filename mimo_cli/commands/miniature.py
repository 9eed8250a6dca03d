"""`mimo miniature`: write a tiny checkpoint with random weights in the release's layout."""

from pathlib import Path
from typing import Annotated

import typer

from mimo_cli.commands.options import GeneralOptions
from mimo_cli.units import format_bytes

EXAMPLES = ("mimo miniature tiny", "mimo miniature tiny-7 --seed 7", "mimo chat -m tiny Hello")


def miniature(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
    general: GeneralOptions,
    seed: Annotated[int, typer.Option("--seed", help="Other seeds give other weights.")] = 0,
) -> None:
    """Write a tiny checkpoint with random weights in exactly the layout of MiMo-V2.5.

    It runs in a second on any machine and has every part of the real model: it is for trying commands, and for testing
    programs that read the release. What it answers means nothing. The same seed gives the same bytes everywhere.
    """
    # Not at the head: building needs torch, the help of this command does not.
    from mimo_cli.miniature.build import write_miniature

    terminal = general.terminal()
    write_miniature(folder, seed)
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    terminal.note(f"wrote {format_bytes(size_bytes)} to {folder}: a random-weight miniature, seed {seed}")
    terminal.write(f"{folder}\n")
