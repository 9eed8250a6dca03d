"""One timeline: however it is cut, repeated, interrupted or taken back, the same tokens give the same logits.

Tolerance 1e-4 between ways of cutting a prompt, on logits of up to 20: attention sums in another order.
"""

from collections.abc import Iterator

import pytest
import torch

from mimo_cli.engine.sequence import Sequence
from mimo_cli.engine.stats import Progress
from mimo_cli.errors import ContextOverflowError, MimoError, UsageError
from mimo_cli.media.prompt import Prompt
from mimo_cli.model.moe import MoE
from mimo_cli.offload.expert_store import ExpertStore
from tests.support.engines import fresh, golden_engine, golden_ids, last_logits, media_prompt, miniature_engine, picture

ENGINE = golden_engine()
IDS = golden_ids(2)  # 400 tokens: past the window of 128
CLOSE = {"atol": 1e-4, "rtol": 0}


def prefilled(ids: tuple[int, ...], max_tokens: int = 512) -> Sequence:
    sequence = fresh(ENGINE, max_tokens)
    sequence.prefill(Prompt(ids))
    return sequence


@pytest.fixture(scope="module")
def whole() -> torch.Tensor:
    """Logits [400, V] of one piece."""
    return ENGINE.logits(IDS, chunk_tokens=400)


@pytest.mark.parametrize("chunk_tokens", [1, 3, 100])
def test_chunks_of_any_size_give_the_logits_of_one_piece(chunk_tokens: int, whole: torch.Tensor) -> None:
    logits = ENGINE.logits(IDS[:180], chunk_tokens)
    torch.testing.assert_close(logits, whole[:180], **CLOSE)
    assert torch.equal(logits.argmax(-1), whole[:180].argmax(-1))


def test_decoding_token_by_token_gives_the_logits_of_the_prompt(whole: torch.Tensor) -> None:
    sequence = prefilled(IDS[:120])
    for position in range(120, 150):  # across the place where the first token leaves the window
        torch.testing.assert_close(sequence.decode(IDS[position]), whole[position], **CLOSE)
    assert sequence.ids == list(IDS[:150])


def test_prefill_returns_the_logits_behind_the_last_token(whole: torch.Tensor) -> None:
    logits = last_logits(ENGINE, Prompt(IDS[:200]))
    assert logits.dtype == torch.float32 and logits.shape == (ENGINE.config.vocab_size,)
    torch.testing.assert_close(logits, whole[199], **CLOSE)


def test_a_prompt_that_goes_on_is_read_from_where_it_goes_on(whole: torch.Tensor) -> None:
    sequence = prefilled(IDS[:150])
    sequence.decode(IDS[150])
    torch.testing.assert_close(sequence.prefill(Prompt(IDS[:200])), whole[199], **CLOSE)
    assert (sequence.last_prefill.cached_tokens, sequence.last_prefill.read_tokens) == (151, 49)


def test_the_same_prompt_again_is_not_read_at_all() -> None:
    sequence = prefilled(IDS[:150])
    logits = sequence.decode(IDS[150])
    for token in IDS[151:156]:
        sequence.decode(token)
    again = sequence.prefill(Prompt(IDS[:150]))
    assert sequence.last_prefill.read_tokens == 0 and sequence.length == 150
    assert torch.equal(sequence.decode(IDS[150]), logits)
    assert torch.equal(again, last_logits(ENGINE, Prompt(IDS[:150])))


def test_a_prompt_that_leaves_the_timeline_long_ago_is_read_from_the_end_of_an_earlier_prompt(
    whole: torch.Tensor,
) -> None:
    sequence = prefilled(IDS[:150])
    sequence.prefill(Prompt(IDS[:390]))
    other = (*IDS[:200], 7, 7, 7)
    assert not ENGINE.config.sliding_attention.window or sequence.length - 200 > 64  # too far back for the window
    torch.testing.assert_close(sequence.prefill(Prompt(other)), last_logits(ENGINE, Prompt(other)), **CLOSE)
    assert sequence.last_prefill.cached_tokens == 150


def test_a_prompt_that_shares_nothing_is_read_from_the_beginning() -> None:
    sequence = prefilled(IDS[:300])
    other = tuple(reversed(IDS[:300]))
    torch.testing.assert_close(sequence.prefill(Prompt(other)), last_logits(ENGINE, Prompt(other)), **CLOSE)
    assert sequence.last_prefill.cached_tokens == 0 and sequence.ids == list(other)


def test_only_the_last_ends_of_prompts_are_kept() -> None:
    sequence = fresh(ENGINE)
    for length in range(20, 400, 40):
        sequence.prefill(Prompt(IDS[:length]))
    sequence.prefill(Prompt((*IDS[:210], 9)))
    assert sequence.last_prefill.cached_tokens == 0  # the ends at 20 ... 180 are forgotten, 220 is too late
    assert sequence.ids == [*IDS[:210], 9]


def test_going_back_a_few_tokens_needs_no_end_of_a_prompt(whole: torch.Tensor) -> None:
    sequence = prefilled(IDS[:300])
    for token in IDS[300:310]:
        sequence.decode(token)
    sequence.prefill(Prompt((*IDS[:305], 3, 4)))
    assert sequence.last_prefill.cached_tokens == 305
    torch.testing.assert_close(sequence.decode(5), last_logits(ENGINE, Prompt((*IDS[:305], 3, 4, 5))), **CLOSE)


def test_a_snapshot_can_be_returned_to_again_and_again(whole: torch.Tensor) -> None:
    sequence = prefilled(IDS[:140])
    saved = sequence.snapshot()
    first = [sequence.decode(token) for token in IDS[140:144]]
    first.append(sequence.prefill(Prompt(IDS[:340])))  # pushes everything out of the windows
    for _ in range(2):
        sequence.restore(saved)
        assert sequence.length == len(saved) == 140 and sequence.ids == list(IDS[:140])
        again = [sequence.decode(token) for token in IDS[140:144]]
        again.append(sequence.prefill(Prompt(IDS[:340])))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_snapshot_is_void_once_the_timeline_went_back_before_it() -> None:
    sequence = prefilled(IDS[:140])
    saved = sequence.snapshot()
    sequence.prefill(Prompt((1, 2, 3)))
    with pytest.raises(MimoError, match="void"):
        sequence.restore(saved)


def test_trimming_takes_back_the_last_tokens(whole: torch.Tensor) -> None:
    sequence = prefilled(IDS[:200])
    sequence.trim(190)
    assert sequence.ids == list(IDS[:190])
    torch.testing.assert_close(sequence.decode(IDS[190]), whole[190], **CLOSE)


def test_trimming_too_far_is_refused_and_changes_nothing(whole: torch.Tensor) -> None:
    sequence = prefilled(IDS[:300])
    with pytest.raises(MimoError, match="sliding window"):
        sequence.trim(50)
    assert sequence.length == 300
    torch.testing.assert_close(sequence.decode(IDS[300]), whole[300], **CLOSE)


def test_a_prompt_longer_than_the_context_is_refused_before_anything_changes() -> None:
    sequence = prefilled(IDS[:50], max_tokens=100)
    with pytest.raises(ContextOverflowError, match=r"400 tokens.*context holds 100") as caught:
        sequence.prefill(Prompt(IDS))
    assert "--ctx" in (caught.value.hint or "")
    assert sequence.ids == list(IDS[:50])


def test_decoding_into_a_full_context_is_refused() -> None:
    sequence = prefilled(IDS[:20], max_tokens=20)
    with pytest.raises(ContextOverflowError, match="20 tokens is full"):
        sequence.decode(1)
    assert sequence.length == 20


@pytest.mark.parametrize("ids", [(), (3, -1), (3, 10**6)])
def test_senseless_ids_are_usage_errors(ids: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        fresh(ENGINE).prefill(Prompt(ids))


def test_progress_grows_layer_by_layer_to_the_whole_prompt() -> None:
    seen: list[Progress] = []
    fresh(ENGINE).prefill(Prompt(IDS[:30]), 20, seen.append)
    done = [progress.done_tokens for progress in seen]
    assert done == sorted(done) and done[-1] == 30 and 20 in done
    assert len(done) == 2 * ENGINE.config.num_hidden_layers
    assert {(progress.stage, progress.total_tokens) for progress in seen} == {("read", 30)}


class Interrupter:
    """Raises KeyboardInterrupt at the n-th layer of experts that is asked for, as Ctrl-C would at any moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self._before(monkeypatch, MoE, "forward")
        self._before(monkeypatch, ExpertStore, "count_step")  # of a layer that was run with others in one native call

    def _before(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        original = getattr(owner, name)

        def interrupted(*inputs: object, **options: object) -> object:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    self.left = None
                    raise KeyboardInterrupt
            return original(*inputs, **options)

        monkeypatch.setattr(owner, name, interrupted)


@pytest.fixture
def interrupter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interrupter]:
    yield Interrupter(monkeypatch)


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_an_interrupted_token_leaves_the_sequence_as_it_was(
    at: int, interrupter: Interrupter, whole: torch.Tensor
) -> None:
    sequence = prefilled(IDS[:140])  # the ring has wrapped
    for position in range(140, 142):
        interrupter.left = at
        with pytest.raises(KeyboardInterrupt):
            sequence.decode(IDS[position])
        assert sequence.ids == list(IDS[:position])
        torch.testing.assert_close(sequence.decode(IDS[position]), whole[position], **CLOSE)


def test_an_interrupted_prefill_goes_on_at_a_whole_chunk(interrupter: Interrupter, whole: torch.Tensor) -> None:
    sequence = fresh(ENGINE)
    interrupter.left = 6 * 3 + 2  # six layers of experts for each chunk: in the fourth chunk
    with pytest.raises(KeyboardInterrupt):
        sequence.prefill(Prompt(IDS), 50)
    assert sequence.ids == list(IDS[:150])
    torch.testing.assert_close(sequence.prefill(Prompt(IDS), 50), whole[-1], **CLOSE)
    assert sequence.last_prefill.cached_tokens == 150


def test_a_picture_that_was_read_is_not_read_again() -> None:
    engine, cat = miniature_engine(), picture(1)
    sequence = engine.start_sequence(200)
    sequence.prefill(media_prompt([7, 8], cat, [9]))
    longer = media_prompt([7, 8], cat, [9, 10, 11])
    logits = sequence.prefill(longer)
    assert sequence.last_prefill.cached_tokens == 9 and cat.read_chunks.decoded == 1
    torch.testing.assert_close(logits, last_logits(engine, longer), **CLOSE)


def test_the_same_picture_opened_twice_counts_as_the_same() -> None:
    sequence = miniature_engine().start_sequence(200)
    sequence.prefill(media_prompt([7, 8], picture(1), [9]))
    sequence.prefill(media_prompt([7, 8], picture(1), [9, 10]))
    assert sequence.last_prefill.cached_tokens == 9


def test_another_picture_of_the_same_size_is_not_taken_for_the_first() -> None:
    engine = miniature_engine()
    sequence = engine.start_sequence(200)
    first = sequence.prefill(media_prompt([7, 8], picture(1), [9]))
    other = media_prompt([7, 8], picture(2), [9])
    logits = sequence.prefill(other)
    assert sequence.last_prefill.cached_tokens <= 2
    torch.testing.assert_close(logits, last_logits(engine, other), **CLOSE)
    assert (logits - first).abs().max() > 0.01


def test_placeholder_ids_without_a_picture_are_not_taken_for_one() -> None:
    sequence = miniature_engine().start_sequence(200)
    with_picture = media_prompt([7, 8], picture(1), [9])
    sequence.prefill(with_picture)
    sequence.prefill(Prompt(with_picture.ids))
    assert sequence.last_prefill.cached_tokens <= 2


def test_a_chunk_may_end_inside_a_picture() -> None:
    engine = miniature_engine()
    prompt = media_prompt([7, 8], picture(1), [9], picture(2), [10])
    torch.testing.assert_close(last_logits(engine, prompt, 4), last_logits(engine, prompt), **CLOSE)


def test_media_that_cannot_be_encoded_leave_the_timeline_usable() -> None:
    engine = miniature_engine()
    sequence = engine.start_sequence(200)
    sequence.prefill(Prompt((7, 8, 9)))
    broken = picture(1)
    object.__setattr__(broken, "read_chunks", lambda: iter(()))
    with pytest.raises(MimoError, match="0 rows, 6 expected"):
        sequence.prefill(media_prompt([7, 8, 9], broken))
    torch.testing.assert_close(
        sequence.prefill(Prompt((7, 8, 9, 10))), last_logits(engine, Prompt((7, 8, 9, 10))), **CLOSE
    )
