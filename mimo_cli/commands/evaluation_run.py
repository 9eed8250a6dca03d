"""One run of `mimo eval`: tasks, then perplexity, then the comparison, each with progress on stderr.

Imported only when the command runs: this is where torch comes in.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

from mimo_cli.api import Engine
from mimo_cli.commands.evaluation_report import ANSWERS, TEXT, acceptance_report, divergence_report, likelihood_report
from mimo_cli.commands.evaluation_request import EvalRequest
from mimo_cli.commands.evaluation_table import write_tables
from mimo_cli.commands.loading import LoadedModel, announce, load_model, warn_about_template
from mimo_cli.commands.model_choice import ModelChoice
from mimo_cli.engine.machine import describe_machine
from mimo_cli.evaluation.bundled import NEEDLE_TOKENS, NEEDLES, text_file
from mimo_cli.evaluation.comparison import Compared, compare, require_same_tokens
from mimo_cli.evaluation.forced import (
    Likelihood,
    Reading,
    answer_readings,
    likelihood,
    reading_logits,
    text_readings,
)
from mimo_cli.evaluation.item import Item
from mimo_cli.evaluation.needle import TASK as NEEDLE
from mimo_cli.evaluation.needle import needle_items
from mimo_cli.evaluation.results import Outcome, Results
from mimo_cli.evaluation.runner import Examiner, missing_senses
from mimo_cli.terminal.console import Terminal
from mimo_cli.terminal.progress import Stage

SOME_FAILED, INTERRUPTED = 5, 130


class EvaluationRun:
    """Runs one request and writes its report, also when it is interrupted."""

    def __init__(self, request: EvalRequest, terminal: Terminal) -> None:
        self._request = request
        self._terminal = terminal
        self._results = Results()
        self._skipped: dict[str, str] = {}
        self._likelihoods: list[tuple[str, Likelihood]] = []
        self._compared: list[Compared] = []
        self._reference: dict[str, Any] = {}
        self._bytes_per_token = 0.0

    def run(self) -> int:
        """Measure and write; returns the exit code. Raises what loading a model raises."""
        request, terminal = self._request, self._terminal
        if request.against is not None:
            require_same_tokens(request.against.folder, request.choice.folder)
        started_s = time.perf_counter()
        with load_model(request.choice, request.model, terminal) as loaded:
            announce(terminal, loaded, NEEDLE_TOKENS)
            warn_about_template(terminal, loaded)
            try:
                self._measure(loaded)
                is_partial = False
            except KeyboardInterrupt:
                is_partial = True
            report = self._report(loaded, is_partial, time.perf_counter() - started_s)
        terminal.clear_status()
        self._write(report)
        if is_partial:
            terminal.line("mimo: interrupted: these are the figures of what was done so far")
            return INTERRUPTED
        for outcome in self._results.failed[:3]:
            terminal.error(f"item {outcome.item.id}: {outcome.error}")
        return SOME_FAILED if self._results.failed else 0

    def _measure(self, loaded: LoadedModel) -> None:
        engine = loaded.engine
        examiner = Examiner(engine)
        for task in self._request.tasks:
            self._ask(examiner, task, self._items(engine, task))
        readings = list(self._readings(engine))
        if self._request.against is None:
            self._measure_perplexity(engine, readings)
        else:
            self._measure_against(self._request.against, engine, readings)

    def _items(self, engine: Engine, task: str) -> list[Item]:
        if task != NEEDLE:
            return self._request.items[task]
        builder, encode = engine.speaker.builder, engine.tokenizer.encode
        probe = Item("probe", task, "", ({"role": "user", "content": ""},), ("",))
        around = len(builder.build(probe.read(engine.media_opener), thinking=False))
        return needle_items(
            self._request.limit or NEEDLES, NEEDLE_TOKENS, lambda text: around + len(encode(text, added_tokens=False))
        )

    def _ask(self, examiner: Examiner, task: str, items: list[Item]) -> None:
        missing = missing_senses(examiner.engine, items)
        if missing or not items:
            self._skipped[task] = f"the model cannot {' or '.join(missing)}" if missing else "there are no questions"
            self._terminal.warn(f"task {task} is skipped: {self._skipped[task]}")
            return
        with Stage(self._terminal, task, "", bar=True) as stage:
            for number, item in enumerate(items, 1):
                outcome = examiner.ask(item)
                self._results.add(outcome)
                self._tell(outcome)
                stage.update(number, len(items))

    def _tell(self, outcome: Outcome) -> None:
        if self._request.output == "jsonl":
            self._write({"type": "item", **outcome.report()})

    def _readings(self, engine: Engine) -> Iterator[tuple[str, Reading]]:
        """Yield what is read with forced ids: the text, and right answers under the names of their tasks."""
        request = self._request
        text = request.text[1] if request.text else text_file().read_text("utf-8")
        ids = engine.tokenizer.encode(text, added_tokens=False)
        self._bytes_per_token = len(text.encode()) / max(len(ids), 1)
        yield from ((TEXT, reading) for reading in text_readings(ids))
        failed = {outcome.item.id for outcome in self._results.failed}
        for items in request.read.values():
            if not missing_senses(engine, items):
                askable = (item for item in items if item.id not in failed)
                yield from ((f"{ANSWERS}/{task}", reading) for task, reading in answer_readings(engine, askable))

    def _measure_perplexity(self, engine: Engine, readings: list[tuple[str, Reading]]) -> None:
        with Stage(self._terminal, "perplexity", "", bar=True) as stage:
            for number, (name, reading) in enumerate(readings, 1):
                found = likelihood(reading_logits(engine.core, reading), reading.targets)
                self._likelihoods.append((name, found))
                stage.update(number, len(readings))

    def _measure_against(self, against: ModelChoice, engine: Engine, readings: list[tuple[str, Reading]]) -> None:
        with load_model(against, self._request.model, self._terminal) as reference:
            self._reference = _about(reference)
            with Stage(self._terminal, "comparison", "", bar=True) as stage:
                for compared in compare(reference.engine.core, engine.core, readings):
                    self._compared.append(compared)
                    self._likelihoods.append((compared.name, compared.model))
                    stage.update(len(self._compared), len(readings))

    def _report(self, loaded: LoadedModel, is_partial: bool, seconds: float) -> dict[str, Any]:
        return {
            "schema": 1,
            **_about(loaded),
            "partial": is_partial,
            "tasks": self._results.report(),
            "skipped": self._skipped,
            "failed": [{"id": outcome.item.id, "error": outcome.error} for outcome in self._results.failed],
            "mtp": acceptance_report(self._results.acceptance()),
            "perplexity": self._perplexity(self._likelihoods),
            "against": self._against(),
            "seconds": round(seconds, 3),
            "machine": describe_machine(),
        }

    def _perplexity(self, found: list[tuple[str, Likelihood]]) -> dict[str, Any]:
        source = self._request.text[0] if self._request.text else "the text inside mimo"
        return likelihood_report(found, source, self._bytes_per_token)

    def _against(self) -> dict[str, Any] | None:
        if not self._compared:
            return None
        theirs = [(compared.name, compared.reference) for compared in self._compared]
        return {
            **self._reference,
            "divergence": divergence_report(self._compared),
            "perplexity": self._perplexity(theirs),
        }

    def _write(self, report: dict[str, Any]) -> None:
        if self._request.output == "table":
            write_tables(self._terminal, report)
            return
        if self._request.output == "jsonl":
            report = {"type": "report", **report} if "type" not in report else report
        self._terminal.write(json.dumps(report, ensure_ascii=False) + "\n")


def _about(loaded: LoadedModel) -> dict[str, Any]:
    choice, core = loaded.choice, loaded.engine.core
    return {
        "model": {"name": choice.name, "folder": str(choice.folder), "is_miniature": choice.notice is not None},
        "compute": {"dtype": loaded.dtype_name, "kernels": core.compute.name, "lossy": list(core.losses)},
    }
