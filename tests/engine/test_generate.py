"""Generation: greedy steps equal plain argmax, every way it ends, forced tokens, interrupts, and what it counts."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch

from mimo_cli.engine.generate import Generation, generate
from mimo_cli.engine.sampling import Sampler, SamplingParams
from mimo_cli.engine.sequence import Sequence
from mimo_cli.errors import ContextOverflowError
from mimo_cli.media.prompt import Prompt
from mimo_cli.model.moe import MoE
from tests.support.engines import fresh, golden_engine, golden_ids, media_prompt, miniature_engine, picture

ENGINE = golden_engine()
PROMPT = Prompt(golden_ids(0))  # 17 tokens
GREEDY = SamplingParams(temperature=0, max_tokens=12)


def run(params: SamplingParams = GREEDY, max_tokens: int = 100, **settings: Any) -> Generation:
    generation = generate(fresh(ENGINE, max_tokens), PROMPT, params, **settings)
    for _ in generation:
        pass
    return generation


@pytest.fixture(scope="module")
def greedy() -> list[int]:
    """Twelve tokens by argmax over whole prompts, without any cache between them."""
    ids = list(PROMPT.ids)
    for _ in range(12):
        ids.append(int(ENGINE.logits(ids)[-1].argmax()))
    return ids[len(PROMPT) :]


def test_greedy_steps_are_the_argmax_of_whole_prompts(greedy: list[int]) -> None:
    generation = run()
    assert generation.tokens == greedy
    assert generation.finish_reason == "length"


def test_nothing_runs_before_the_first_step() -> None:
    sequence = fresh(ENGINE)
    generate(sequence, PROMPT, GREEDY)
    assert sequence.length == 0


def test_the_last_token_is_yielded_but_not_cached(greedy: list[int]) -> None:
    sequence = fresh(ENGINE)
    steps = list(generate(sequence, PROMPT, GREEDY))
    assert [step.token for step in steps] == greedy
    assert sequence.ids == [*PROMPT.ids, *greedy[:-1]]
    assert [step.finish_reason for step in steps] == [None] * 11 + ["length"]


def test_a_stop_id_ends_it_and_is_the_last_token(greedy: list[int]) -> None:
    generation = run(SamplingParams(temperature=0, stop_ids={greedy[4], 999}))
    assert generation.tokens == greedy[: greedy.index(greedy[4]) + 1]
    assert generation.finish_reason == "stop"


def test_a_full_context_ends_it(greedy: list[int]) -> None:
    generation = run(SamplingParams(temperature=0), max_tokens=20)
    assert generation.finish_reason == "context"
    assert generation.tokens == greedy[:4]  # 17 + 3 cached, and one more that needs no place


def test_a_prompt_that_fills_the_context_still_gets_one_token(greedy: list[int]) -> None:
    generation = run(SamplingParams(temperature=0), max_tokens=17)
    assert (generation.tokens, generation.finish_reason) == (greedy[:1], "context")


def test_a_prompt_beyond_the_context_raises_at_the_first_step() -> None:
    generation = generate(fresh(ENGINE, 10), PROMPT, GREEDY)
    with pytest.raises(ContextOverflowError):
        next(generation)


def test_the_same_seed_gives_the_same_tokens() -> None:
    params = SamplingParams(temperature=1.5, top_p=1.0, seed=5, max_tokens=12)
    assert run(params).tokens == run(params).tokens
    assert run(SamplingParams(temperature=1.5, top_p=1.0, seed=6, max_tokens=12)).tokens != run(params).tokens


def test_the_seed_that_was_drawn_is_told() -> None:
    first = run(SamplingParams(temperature=1.5, max_tokens=6))
    assert run(SamplingParams(temperature=1.5, max_tokens=6, seed=first.stats.seed)).tokens == first.tokens


def test_forced_tokens_come_in_order_and_the_model_goes_on_after_them(greedy: list[int]) -> None:
    def force(tokens: list[int]) -> list[int]:
        return [11, 12] if len(tokens) == 3 else []

    sequence = fresh(ENGINE)
    steps = list(generate(sequence, PROMPT, GREEDY, force=force))
    assert [step.token for step in steps][:5] == [*greedy[:3], 11, 12]
    assert [step.is_forced for step in steps] == [False] * 3 + [True] * 2 + [False] * 7
    expected = ENGINE.logits([*PROMPT.ids, *greedy[:3], 11, 12])[-1].argmax()
    assert steps[5].token == expected


def test_a_forced_stop_id_ends_it() -> None:
    params = SamplingParams(temperature=0, stop_ids=(9,))
    generation = run(params, force=lambda tokens: (9,) if len(tokens) == 2 else ())
    assert len(generation.tokens) == 3 and generation.finish_reason == "stop"


def test_the_repetition_penalty_knows_the_prompt() -> None:
    choices = ENGINE.logits(golden_ids(1)).argmax(-1).tolist()
    length = next(i + 1 for i, token in enumerate(choices) if token in golden_ids(1)[: i + 1])
    prompt = Prompt(golden_ids(1)[:length])
    free = generate(fresh(ENGINE), prompt, SamplingParams(temperature=0, max_tokens=1))
    barred = generate(fresh(ENGINE), prompt, SamplingParams(temperature=0, max_tokens=1, repetition_penalty=1e6))
    assert next(free).token in prompt.ids
    assert next(barred).token not in prompt.ids


class InterruptAt:
    """Raises KeyboardInterrupt at chosen layers of experts, counted through all passes."""

    def __init__(self, calls: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
        original, self.count = MoE.forward, 0

        def forward(moe: MoE, *inputs: object) -> object:
            self.count += 1
            if self.count in calls:
                raise KeyboardInterrupt
            return original(moe, *inputs)

        monkeypatch.setattr(MoE, "forward", forward)


def persistent(generation: Generation) -> Iterator[int]:
    """Take steps, asking again after every interrupt."""
    while True:
        try:
            yield next(generation).token
        except KeyboardInterrupt:
            continue
        except StopIteration:
            return


def test_an_interrupted_generation_goes_on_with_the_same_tokens(
    greedy: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    InterruptAt({3, 9, 12, 13, 30, 41, 57}, monkeypatch)  # in the prompt, and in several tokens, twice in one
    assert list(persistent(generate(fresh(ENGINE), PROMPT, GREEDY))) == greedy


def test_an_interrupt_after_the_token_was_cached_does_not_cache_it_twice(
    greedy: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, interrupted = Sequence.decode, []

    def decode(sequence: Sequence, token: int) -> torch.Tensor:
        logits = original(sequence, token)
        if sequence.length == 20 and not interrupted:
            interrupted.append(token)
            raise KeyboardInterrupt
        return logits

    monkeypatch.setattr(Sequence, "decode", decode)
    sequence = fresh(ENGINE)
    assert list(persistent(generate(sequence, PROMPT, GREEDY))) == greedy
    assert interrupted and sequence.ids == [*PROMPT.ids, *greedy[:-1]]


def test_an_interrupt_while_a_token_is_chosen_neither_caches_twice_nor_loses_a_forced_one(
    greedy: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def force(tokens: list[int]) -> list[int]:
        return [11, 12] if len(tokens) == 6 else []

    undisturbed = fresh(ENGINE)
    expected = [step.token for step in generate(undisturbed, PROMPT, GREEDY, force=force)]
    assert expected[:8] == [*greedy[:6], 11, 12]
    observe, calls = Sampler.observe, [0]

    def interrupted(sampler: Sampler, ids: Iterable[int]) -> None:
        calls[0] += 1
        if calls[0] in (5, 6, 9, 11, 15):  # the prompt and sampled tokens at first, twice in one; then forced ones
            raise KeyboardInterrupt
        observe(sampler, ids)

    monkeypatch.setattr(Sampler, "observe", interrupted)
    sequence = fresh(ENGINE)
    assert list(persistent(generate(sequence, PROMPT, GREEDY, force=force))) == expected
    assert calls[0] == 13 + 5 and sequence.ids == undisturbed.ids


def test_two_generations_on_one_sequence_one_after_the_other_share_the_prompt() -> None:
    sequence = fresh(ENGINE)
    first = list(generate(sequence, PROMPT, GREEDY))
    again = generate(sequence, PROMPT, GREEDY)
    assert [step.token for step in again] == [step.token for step in first]
    assert again.stats.cached_tokens == len(PROMPT)


def test_stats_count_tokens_seconds_bytes_and_experts() -> None:
    generation = run()
    stats = generation.stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.generated_tokens) == (17, 0, 12)
    assert 0 < stats.prefill_s <= stats.first_token_s and stats.encode_s < stats.prefill_s
    assert stats.decode_s > 0 and stats.decode_tps == pytest.approx(11 / stats.decode_s)
    assert stats.prefill_tps == pytest.approx(17 / stats.prefill_s)
    assert stats.context_tokens == 17 + 11 and stats.context_limit == 100
    assert stats.kv_bytes == generation.sequence.kv_bytes > 0 and stats.peak_rss_bytes > 10**7
    layers, active = len(ENGINE.config.moe_layers), ENGINE.config.num_experts_per_tok
    asked = stats.decode_experts.hits + stats.decode_experts.misses
    assert asked == 11 * layers * active


def test_stats_tell_how_long_media_took() -> None:
    engine = miniature_engine()
    generation = generate(engine.start_sequence(100), media_prompt([7], picture(3), [8]), GREEDY)
    next(generation)
    assert 0 < generation.stats.encode_s < generation.stats.first_token_s
