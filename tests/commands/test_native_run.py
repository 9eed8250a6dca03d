"""The commands run on the native kernels: calls and expert reads of a real `mimo chat`, `mimo bench` and Engine.logits.

A pass through a miniature is, in every layer, one call for q, k, v and one for the attention's output, and
three for a dense feed-forward or at least one for a layer of experts; then one call for the head. A layer of
experts takes more calls while some of them are still being read, as many as they arrive in.
"""

import json
from pathlib import Path
from typing import Any

import pytest

import mimo_cli
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import load_engine
from tests.support.cli import Run, run_cli
from tests.support.kernels import needs_kernels
from tests.support.miniature import random_miniature

CONFIG = ModelConfig.from_file(random_miniature() / "config.json")
MOE_LAYERS = len(CONFIG.moe_layers)
LAYERS = CONFIG.num_hidden_layers
CALLS_OF_A_PASS = 2 * LAYERS + 3 * (LAYERS - MOE_LAYERS) + 1  # without experts
ANSWER_TOKENS = 6


class Counted:
    """Stands where `load_engine` does and keeps what it loaded, and how often its kernels had been called."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.calls_before = 0

    def __call__(self, *args: Any, **options: Any) -> Engine:
        self.engine = load_engine(*args, **options)
        assert self.engine.compute.kernels is not None
        # Packing is no call: what is counted from here on is the network.
        self.calls_before = self.engine.compute.kernels.calls
        return self.engine

    @property
    def calls(self) -> int:
        """Native calls since loading."""
        assert self.engine is not None and self.engine.compute.kernels is not None
        return self.engine.compute.kernels.calls - self.calls_before


@pytest.fixture
def counted() -> Counted:
    return Counted()


def run(counted: Counted, home: Path, *argv: str, **options: Any) -> Run:
    """Run a command on a miniature that seldom ends an answer by itself."""
    model = ("-m", str(random_miniature()))
    return run_cli(*argv, *model, home=home, commands__loading__load_engine=counted, **options)


def ask(counted: Counted, home: Path, *argv: str, **options: Any) -> dict[str, Any]:
    """Ask for an answer of exactly ANSWER_TOKENS tokens, as JSON."""
    found = run(counted, home, "chat", "--json", "-q", "-n", str(ANSWER_TOKENS), "--seed", "2", *argv, **options)
    assert found.code == 0, found.err
    document: dict[str, Any] = json.loads(found.out)
    assert document["usage"]["completion_tokens"] == ANSWER_TOKENS
    return document


@needs_kernels
def test_a_chat_makes_one_call_for_each_matrix_and_one_for_each_layer_of_experts(
    counted: Counted, tmp_path: Path
) -> None:
    ask(counted, tmp_path, "hi")
    passes = ANSWER_TOKENS  # one reads the prompt, each of the others a token of the answer; the last is not read
    assert counted.engine is not None
    experts = counted.engine.experts
    assert counted.calls - experts.native_calls == passes * CALLS_OF_A_PASS
    assert passes * MOE_LAYERS <= experts.native_calls <= passes * MOE_LAYERS + experts.misses
    # The prompt is long enough to ask for every expert once, each token then for A experts of each layer.
    asked = MOE_LAYERS * (CONFIG.n_routed_experts + (passes - 1) * CONFIG.num_experts_per_tok)
    assert (experts.misses, experts.hits + experts.misses) == (MOE_LAYERS * CONFIG.n_routed_experts, asked)


@needs_kernels
def test_a_picture_s_rows_go_the_same_way(counted: Counted, tmp_path: Path) -> None:
    picture = Path(__file__).parents[2] / "examples" / "cat.jpg"
    ask(counted, tmp_path, "--image", str(picture), "What is this?")
    assert counted.engine is not None
    assert counted.calls - counted.engine.experts.native_calls == ANSWER_TOKENS * CALLS_OF_A_PASS


@needs_kernels
def test_bench_runs_the_same_calls(counted: Counted, tmp_path: Path) -> None:
    found = run(counted, tmp_path, "bench", "-q", "--json", "-p", "16", "-n", "4", "-r", "1")
    assert found.code == 0, found.err
    assert counted.engine is not None
    experts = counted.engine.experts
    passes, rest = divmod(counted.calls - experts.native_calls, CALLS_OF_A_PASS)
    assert rest == 0 and passes > 0 and experts.native_calls >= passes * MOE_LAYERS


@needs_kernels
def test_logits_of_a_script_run_the_same_calls() -> None:
    with mimo_cli.load(random_miniature(), dtype="float32") as engine:
        native = engine.core.compute.kernels
        assert native is not None
        before = native.calls
        engine.logits(range(40, 60))
        assert native.calls - before - engine.core.experts.native_calls == CALLS_OF_A_PASS
        assert engine.core.experts.native_calls >= MOE_LAYERS


@pytest.mark.parametrize("name", ["avx2", "avx512", "none"])
def test_the_environment_chooses_kernels_and_no_answer_changes(name: str, counted: Counted, tmp_path: Path) -> None:
    argv = ("chat", "--no-think", "-n", "4", "--seed", "3", "--dtype", "float32", "hi")
    usual = run_cli(*argv, home=tmp_path)
    other = run_cli(*argv, home=tmp_path, environ={"MIMO_ISA": name})
    assert other.out == usual.out
    if name == "none":
        assert "computed in float32, kernels: torch\n" in other.err
        assert "mimo: computed by torch, which is slower: MIMO_ISA is `none`\n" in other.err
    else:
        assert f"kernels: {name}" in other.err or f"this processor lacks {name}" in other.err


def test_threads_reach_the_kernels_and_int8_is_refused_nowhere(tmp_path: Path) -> None:
    found = run_cli("chat", "--threads", "3", "--precision", "int8", "-n", "2", "hi", home=tmp_path)
    assert found.code == 0
    assert "3 threads" in found.err or "kernels: torch" in found.err
    assert "mimo: lossy: nothing\n" in found.err  # the miniature has no integer weights
