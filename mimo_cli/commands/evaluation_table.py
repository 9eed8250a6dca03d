"""The report of `mimo eval` for people: tables of its JSON values."""

from typing import Any

from mimo_cli.terminal.console import Terminal
from mimo_cli.terminal.tables import write_pairs, write_table
from mimo_cli.units import format_duration

_TASK_COLUMNS = ("task", "score", "95 % interval", "n", "word errors", "95 % interval", "time")
_DISTANCE_COLUMNS = ("read by both", "KL divergence", "same best token", "largest difference", "tokens")


def write_tables(terminal: Terminal, report: dict[str, Any]) -> None:
    """Write everything that was measured."""
    rows = [row for task, values in report["tasks"].items() for row in _task_rows(task, values)]
    if rows:
        write_table(terminal, _TASK_COLUMNS, rows, numbers=range(1, len(_TASK_COLUMNS)))
        terminal.write("\n")
    against = report["against"]
    if against:
        write_table(terminal, _DISTANCE_COLUMNS, _distance_rows(against["divergence"]), numbers=range(1, 5))
        terminal.write(f"distance from {against['model']['name']}, {against['compute']['dtype']}; nats per token\n\n")
    pairs = _pairs(report)
    write_pairs(terminal, [(name, value) for name, value in pairs if value])


def _task_rows(task: str, values: dict[str, Any]) -> list[list[str]]:
    rows = [[task, *_cells(values), format_duration(values["seconds"])]]
    kinds = values["kinds"] if len(values["kinds"]) > 1 else {}
    for name, part in [*kinds.items(), *values["groups"].items()]:
        rows.append([f"  {name}", *_cells(part), ""])
    return rows


def _cells(values: dict[str, Any]) -> list[str]:
    if not values["n"]:
        return ["-", "-", "0", "", ""]
    score = [f"{values['score']:.3f}", f"{values['ci_low']:.3f}-{values['ci_high']:.3f}", str(values["n"])]
    if "wer" not in values:
        return [*score, "", ""]
    low, high = values["wer_ci_low"] * 100, values["wer_ci_high"] * 100
    return [*score, f"{values['wer'] * 100:.1f} %", f"{low:.1f}-{high:.1f} %"]


def _distance_rows(divergence: dict[str, Any]) -> list[list[str]]:
    named: list[tuple[str, Any]] = [(name, divergence[name]) for name in ("text", "answers") if name in divergence]
    named += [(f"  {task}", values) for task, values in divergence.get("tasks", {}).items()]
    return [
        [
            name,
            f"{values['mean_kld']:.3g}",
            f"{values['same_top1'] * 100:.2f} %",
            f"{values['max_abs']:.3g}",
            f"{values['n']:,}",
        ]
        for name, values in named
    ]


def _pairs(report: dict[str, Any]) -> list[tuple[str, str]]:
    mtp, compute = report["mtp"], report["compute"]
    shares = [f"{share:.3f}" for share in (mtp["acceptance"] if mtp else []) if share is not None]
    return [
        *_perplexity_pairs("perplexity", report["perplexity"]),
        *_perplexity_pairs("the reference's", report["against"]["perplexity"] if report["against"] else {}),
        ("drafts accepted", f"{', '.join(shares)} by MTP module, of {mtp['n']:,} first drafts" if mtp else ""),
        ("skipped", ", ".join(f"{task} ({reason})" for task, reason in report["skipped"].items())),
        ("model", f"{report['model']['name']}, {compute['dtype']}, kernels: {compute['kernels']}"),
        ("lossy", "; ".join(compute["lossy"]) or "nothing"),
        ("time", format_duration(report["seconds"]) + (", interrupted" if report["partial"] else "")),
    ]


def _perplexity_pairs(name: str, perplexity: dict[str, Any]) -> list[tuple[str, str]]:
    text, answers = perplexity.get("text"), perplexity.get("answers")
    pairs = []
    if text:
        bits = f"{text['bits_per_byte']:.3f} bits per byte, {text['n']:,} tokens of {text['source']}"
        pairs.append((f"{name}, text", f"{_number(text['perplexity'])} ({bits})"))
    if answers:
        pairs.append((f"{name}, right answers", f"{_number(answers['perplexity'])} ({answers['n']:,} tokens)"))
    return pairs


def _number(value: float | None) -> str:
    return "beyond all numbers" if value is None else f"{value:.4g}"
