"""What each format costs in quality: mean KL divergence and same best token, against float32 on the same weights.

What is read are the right answers to the bundled questions but needles, media included, as `mimo eval --against` reads
them.

    python -m benchmarks.quality [MODEL ...]

For each checkpoint (by default the bundled miniature) the reference is the model as released, dequantised to float32
and computed by torch. Every row is a packed store made for the purpose, computed by the kernels. The last two columns
repeat the measurement with the reference's choice of experts: a small change of a near tie sends a token to other
experts, which in models with random weights outweighs everything else. Prints a table in Markdown.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mimo_cli.api import Engine as ChatModel
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.engine.divergence import Divergence, compare_logits, join
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.evaluation.bundled import items_folder
from mimo_cli.evaluation.forced import Reading, answer_readings, reading_logits
from mimo_cli.evaluation.item import read_items
from mimo_cli.evaluation.runner import missing_senses
from mimo_cli.media.prompt import Prompt
from mimo_cli.miniature.bundled import bundled_path
from mimo_cli.model.moe import Router
from mimo_cli.offload.dequantized_experts import DequantizedExperts
from mimo_cli.quant import nf4
from mimo_cli.quant.experts import ExpertWeights
from mimo_cli.quant.kernels import ISA_VARIABLE
from mimo_cli.store.convert import convert
from mimo_cli.store.manifest import RecordLayout
from mimo_cli.store.plan import QuantizeOptions, plan_store

ANSWERS_PER_TASK = 12
REAL_SHAPE = 4096, 2048
"""Hidden size and expert width of MiMo-V2.5, for bits per weight: small models pad."""


@dataclass(frozen=True)
class Row:
    """One line of the table. `options` None: the checkpoint itself."""

    name: str
    options: QuantizeOptions | None
    precision: str = "exact"
    dtype: str = "float32"
    is_nf4: bool = False

    def bits(self) -> str:
        """Return bits per weight of experts and of dense matrices."""
        if self.is_nf4:
            return f"{nf4.BITS_PER_WEIGHT:.2f} / as released"
        if self.options is None:
            return "as released"
        kind = self.options.experts
        group = self.options.group if kind == "int4" else {"mxfp4": 32}.get(kind, 128)
        experts = RecordLayout(kind, group, *REAL_SHAPE, 1, (0,)).bits_per_weight  # type: ignore[arg-type]
        dense = {"keep": "as released", "int8": "8.13", "int4": "4.50"}[self.options.dense]
        return f"{experts:.2f} / {dense}"


ROWS = (
    Row("as released, kernels, exact", None),
    Row("as released, kernels, bfloat16", None, dtype="bfloat16"),
    Row("fp8", QuantizeOptions("fp8")),
    Row("mxfp4", QuantizeOptions("mxfp4")),
    Row("int4 g32", QuantizeOptions("int4", 32)),
    Row("int4 g64", QuantizeOptions("int4", 64)),
    Row("int4 g128", QuantizeOptions("int4", 128)),
    Row("nf4 (bitsandbytes)", None, is_nf4=True),
    Row("fp8, dense int8", QuantizeOptions("fp8", 32, "int8")),
    Row("fp8, dense int4 g32", QuantizeOptions("fp8", 32, "int4")),
    Row("int4 g32, dense int8", QuantizeOptions("int4", 32, "int8")),
    Row("int4 g32, dense int8, activations int8", QuantizeOptions("int4", 32, "int8"), "int8"),
)


class Routing:
    """Records the experts that a reference chooses, and makes another model choose the same."""

    def __init__(self) -> None:
        self.choices: list[Tensor] = []

    @contextmanager
    def recorded(self, model: nn.Module) -> Iterator[None]:
        """Remember every choice in the block."""
        hooks = [router.register_forward_hook(self._record) for router in _routers(model)]
        yield
        for hook in hooks:
            hook.remove()

    @contextmanager
    def repeated(self, model: nn.Module) -> Iterator[None]:
        """Replace every choice in the block; weights are the model's own scores of those experts."""
        left = iter(self.choices)

        def replace(router: Router, inputs: tuple[Tensor], _: object) -> tuple[Tensor, Tensor]:
            expert_ids = next(left)
            scores = nn.functional.linear(inputs[0].float(), router.weight).sigmoid().gather(1, expert_ids)
            if router.norm_topk_prob:
                scores = scores / (scores.sum(-1, keepdim=True) + 1e-20)
            return expert_ids, scores * router.routed_scaling_factor

        hooks = [router.register_forward_hook(replace) for router in _routers(model)]
        yield
        for hook in hooks:
            hook.remove()

    def _record(self, _module: nn.Module, _inputs: object, output: tuple[Tensor, Tensor]) -> None:
        self.choices.append(output[0])


def _routers(model: nn.Module) -> list[Router]:
    return [module for module in model.modules() if isinstance(module, Router)]


def measure(source: Path) -> Iterator[tuple[Row, Divergence, Divergence]]:
    """Yield each row with its divergence, and that with the routing of the reference."""
    with without_kernels(), load_engine(source, dtype="float32") as reference:
        readings = readings_of(reference)
        routings = [Routing() for _ in readings]
        expected = []
        for reading, routing in zip(readings, routings, strict=True):
            with routing.recorded(reference.decoder):
                expected.append(reading_logits(reference, reading))
        for row in ROWS:
            if row.is_nf4:
                engine = nf4_engine(source, reference)
                yield row, *_compare(engine, readings, routings, expected)
    for row in ROWS:
        if row.is_nf4:
            continue
        with tempfile.TemporaryDirectory() as folder:
            if row.options is not None:
                convert(plan_store(source, row.options), Path(folder) / "store")
            model = source if row.options is None else Path(folder) / "store"
            options = LoadOptions(precision=row.precision)  # type: ignore[arg-type]
            with load_engine(model, dtype=row.dtype, options=options) as engine:
                yield row, *_compare(engine, readings, routings, expected)


def readings_of(engine: Engine) -> list[Reading]:
    """Return what is read: prompts of the bundled questions with their right answers, those the model can sense.

    Random tokens where the folder has no tokenizer: a checkpoint that was made for tests.
    """
    if not (engine.folder / "tokenizer.json").is_file():
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, engine.config.vocab_size, (4, 256), generator=generator).tolist()
        return [Reading(Prompt(tuple(sequence)), 1) for sequence in ids]
    model = ChatModel(engine)
    # Needles are 4,096 tokens each: they would take nearly all of the time and give one answer in ten.
    items = [item for item in read_items(items_folder()) if item.task != "needle" and not missing_senses(model, [item])]
    return [reading for _, reading in answer_readings(model, items, ANSWERS_PER_TASK)]


def _compare(
    engine: Engine, readings: list[Reading], routings: list[Routing], expected: list[Tensor]
) -> tuple[Divergence, Divergence]:
    free, forced = [], []
    for reading, routing, logits in zip(readings, routings, expected, strict=True):
        free.append(compare_logits(logits, reading_logits(engine, reading)))
        with routing.repeated(engine.decoder):
            forced.append(compare_logits(logits, reading_logits(engine, reading)))
    return join(free), join(forced)


def nf4_engine(source: Path, reference: Engine) -> Engine:
    """Return the reference with experts that went through NF4."""
    engine = load_engine(source, dtype="float32")

    def read(layer: int, expert: int) -> tuple[ExpertWeights, int]:
        names = [expert_weight_name(layer, expert, part) for part in ("gate_proj", "up_proj", "down_proj")]
        gate, up, down = (nf4.round_trip(reference.reader.read(name, torch.float32)) for name in names)
        return (gate, up, down), 0

    experts = DequantizedExperts(read, 1)
    for number, layer in enumerate(engine.decoder.layers):
        if engine.config.is_moe(number):
            layer.mlp.run_experts = partial(experts.run, number)
    return engine


@contextmanager
def without_kernels() -> Iterator[None]:
    """Compute with torch in the block."""
    before = os.environ.get(ISA_VARIABLE)
    os.environ[ISA_VARIABLE] = "none"
    try:
        yield
    finally:
        os.environ.pop(ISA_VARIABLE)
        if before is not None:
            os.environ[ISA_VARIABLE] = before


def main() -> None:
    """Print a table for each model."""
    for source in [Path(name) for name in sys.argv[1:]] or [bundled_path()]:
        print(f"\n{source}\n")
        print(
            "| experts, dense | bits per weight, experts / dense | mean KLD | same top-1 | KLD, same experts | top-1 |"
        )
        print("|---|---|---|---|---|---|")
        found = {row: results for row, *results in measure(source)}
        for row in ROWS:
            free, forced = found[row]
            numbers = f"{free.mean_kld:.2e} | {free.same_top1:.1%} | {forced.mean_kld:.2e} | {forced.same_top1:.1%}"
            print(f"| {row.name} | {row.bits()} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
