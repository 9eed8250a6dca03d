"""`mimo eval`: options to an EvalRequest; the measuring is done in evaluation_run, the table in evaluation_report."""

from typing import Annotated

import typer

from mimo_cli.chat.named_files import user_path
from mimo_cli.commands.evaluation_request import EvalRequest, choose_tasks, items_by_task
from mimo_cli.commands.model_choice import choose_model
from mimo_cli.commands.options import GeneralOptions, ModelOptions
from mimo_cli.commands.sources import read_text_file
from mimo_cli.errors import UsageError

EXAMPLES = (
    "mimo eval",
    "mimo eval -m ~/models/store --against ~/models/MiMo-V2.5 --tasks none",
    "mimo eval --tasks speech,words --limit 50 --json",
)


def eval(  # the command's name
    general: GeneralOptions,
    model: ModelOptions,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="MODEL", help="Reference: how far are the predictions from this model's?"),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option("--tasks", metavar="T,T", help="Tasks to ask, or none [all, see docs/evaluation.md].")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="At most N questions of each task and group.")
    ] = None,
    items: Annotated[
        str | None, typer.Option("--items", metavar="DIR", help="Questions of your own instead of those inside mimo.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="FILE", help="Text for the perplexity instead of the one inside.")
    ] = None,
    as_json: Annotated[bool, typer.Option("-j", "--json", help="One JSON object.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="A line for each question, then the whole.")] = False,
) -> int:
    """Judge a model: task scores on held-out questions, perplexity, accepted drafts, distance to another model.

    The questions (pictures, written words, speech, sounds, films, text, a needle in 4,096 tokens, tool calls) come with
    mimo and are answered greedily; scores have 95 % intervals. With --against, both models read the same ids, and the
    mean KL divergence (nats) and the share of the same best token are told: what a smaller format costs.

    Exit codes: 0 done, 2 wrong usage or input, 3 model files missing or damaged, 5 some questions could not be asked,
    130 Ctrl-C; then what was done so far is written all the same, marked partial.
    """
    if as_json and as_jsonl:
        raise UsageError("--json and --jsonl exclude each other")
    terminal = general.terminal()
    model.limit_threads()
    folder = None if items is None else user_path(items)
    names = choose_tasks(tasks, folder)
    asked = items_by_task(names, folder, limit)
    request = EvalRequest(
        choose_model(model.model),
        None if against is None else choose_model(against),
        model,
        names,
        asked,
        asked if names else items_by_task(choose_tasks(None, folder), folder, limit),
        limit,
        None if text is None else (text, read_text_file(text)),
        "json" if as_json else "jsonl" if as_jsonl else "table",
    )
    from mimo_cli.commands.evaluation_run import EvaluationRun

    return EvaluationRun(request, terminal).run()
