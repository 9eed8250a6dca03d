"""`mimo inspect`: what a model folder holds, and views of a tensor, a medium or a prompt as that model sees them."""

import json
from typing import Annotated, Any

import typer

from mimo_cli.commands.model_choice import ModelChoice, choose_model
from mimo_cli.commands.options import GeneralOptions, MediaReadingOptions
from mimo_cli.errors import CheckpointError, UsageError
from mimo_cli.terminal.console import Terminal
from mimo_cli.units import format_bytes, format_count

EXAMPLES = (
    "mimo inspect",
    "mimo inspect ~/models/MiMo-V2.5 --json",
    "mimo inspect --tensor model.layers.0.self_attn.o_proj.weight",
    "mimo inspect --media clip.mp4",
)
_DAMAGED = CheckpointError.exit_code


def inspect(
    media_reading: MediaReadingOptions,
    general: GeneralOptions,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Folder or name; else the default model.")
    ] = None,
    model_option: Annotated[
        str | None, typer.Option("-m", "--model", metavar="MODEL", help="The same.", hidden=True)
    ] = None,
    tensor: Annotated[
        str | None, typer.Option("--tensor", metavar="NAME", help="Shape, type, shard and range of a tensor.")
    ] = None,
    media: Annotated[
        str | None, typer.Option("--media", metavar="FILE", help="What the model gets of a picture, video or sound.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="A question rendered and cut into tokens.")
    ] = None,
    as_json: Annotated[bool, typer.Option("-j", "--json", help="One JSON object.")] = False,
) -> int:
    """Show what a model is: family, layers, experts, formats, bytes by part, and what is missing.

    Reads headers and JSON files only, except --tensor, which reads that tensor. Exits with 3 where tensors are
    missing, left over or of the wrong shape.
    """
    terminal = general.terminal()
    if sum(view is not None for view in (tensor, media, prompt)) > 1:
        raise UsageError("--tensor, --media and --prompt exclude each other")
    choice = choose_model(model or model_option)
    if tensor is not None:
        return _show(terminal, _tensor_view(choice, tensor), as_json)
    if media is not None:
        return _show(terminal, _media_view(choice, media, media_reading), as_json)
    if prompt is not None:
        return _show_prompt(terminal, choice, prompt, as_json)
    return _show_model(terminal, choice, as_json)


def _show_model(terminal: Terminal, choice: ModelChoice, as_json: bool) -> int:
    from mimo_cli.commands.model_facts import fact_lines, model_facts
    from mimo_cli.terminal.tables import write_pairs, write_table

    facts = model_facts(choice)
    if as_json:
        terminal.write(json.dumps(facts, ensure_ascii=False) + "\n")
    else:
        write_pairs(terminal, fact_lines(facts))
        terminal.write("\n")
        write_table(terminal, ("part", "tensors", "parameters", "size", "stored as"), _part_rows(facts), (1, 2, 3))
    template = facts["template"]
    if template.get("is_known") is False:
        terminal.warn(f"the chat template in `{template['source']}` is not the release's of MiMo-V2.5")
    for problem in facts["problems"]:
        terminal.line(f"mimo: {problem}")
    if facts["num_problems"]:
        terminal.error(f"{facts['num_problems']} tensors do not fit config.json. TRY: fetch the checkpoint again")
    return _DAMAGED if facts["num_problems"] else 0


def _part_rows(facts: dict[str, Any]) -> list[list[str]]:
    return [
        [
            part["name"],
            format_count(part["tensors"]),
            format_count(part["parameters"]),
            format_bytes(part["size_bytes"]),
            ", ".join(f"{name} {format_bytes(size)}" for name, size in part["formats"].items()),
        ]
        for part in facts["storage"]["parts"]
    ]


def _tensor_view(choice: ModelChoice, name: str) -> dict[str, Any]:
    from mimo_cli.commands.tensor_view import tensor_view

    return tensor_view(choice, name)


def _media_view(choice: ModelChoice, source: str, options: MediaReadingOptions) -> dict[str, Any]:
    from mimo_cli.commands.media_view import media_view

    return media_view(choice, source, options)


def _show(terminal: Terminal, view: dict[str, Any], as_json: bool) -> int:
    from mimo_cli.terminal.tables import write_pairs

    if as_json:
        terminal.write(json.dumps({"schema": 1, **view}, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        shown = [(name, value) for name, value in view.items() if value != []]
        write_pairs(terminal, [(name.replace("_", " "), _text(name, value)) for name, value in shown])
    return 0


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if name.endswith("_bytes") and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return format_count(value) if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _show_prompt(terminal: Terminal, choice: ModelChoice, text: str, as_json: bool) -> int:
    from mimo_cli.chat.messages import Message
    from mimo_cli.chat.prompt_builder import PromptBuilder
    from mimo_cli.chat.template import ChatTemplate
    from mimo_cli.chat.tokenizer import Tokenizer
    from mimo_cli.checkpoint.config import ModelConfig

    config = ModelConfig.from_file(choice.folder / "config.json")
    tokenizer = Tokenizer.from_folder(choice.folder)
    builder = PromptBuilder(tokenizer, ChatTemplate.from_folder(choice.folder), config.processor)
    ids = list(builder.build([Message.of("user", text)]).ids)
    pieces = [tokenizer.token_bytes(token_id).decode("utf-8", "replace") for token_id in ids]
    rendered = tokenizer.decode(ids)
    if as_json:
        view = {"schema": 1, "text": rendered, "tokens": len(ids), "ids": ids, "pieces": pieces}
        terminal.write(json.dumps(view, ensure_ascii=False) + "\n")
        return 0
    terminal.write(f"{rendered}\n\n{format_count(len(ids))} tokens\n")
    terminal.write("".join(f"{token_id:>7}  {piece!r}\n" for token_id, piece in zip(ids, pieces, strict=True)))
    return 0
