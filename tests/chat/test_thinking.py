from mimo_cli.chat.loop_guard import LoopGuard
from mimo_cli.chat.thinking import ThinkingControl
from tests.support.tiny_tokenizer import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
OPEN, CLOSE = TOKENIZER.added_tokens["<think>"], TOKENIZER.added_tokens["</think>"]
(WORD,) = TOKENIZER.encode("a", added_tokens=False)
(NEWLINE,) = TOKENIZER.encode("\n", added_tokens=False)


def generate(control: ThinkingControl, wanted: list[int], limit: int = 1000) -> list[int]:
    """Play an engine that always writes `wanted` unless the control forces something."""
    tokens: list[int] = []
    ids = iter(wanted)
    while len(tokens) < limit:
        forced = control(tokens)
        if forced:
            tokens += forced
            continue
        token = next(ids, None)
        if token is None:
            break
        tokens.append(token)
    control(tokens)
    return tokens


def test_nothing_is_forced_without_a_reason() -> None:
    wanted = [OPEN, *[WORD] * 5, CLOSE, WORD]
    control = ThinkingControl(TOKENIZER)
    assert generate(control, wanted) == wanted
    assert control.thinking_tokens == 5 and not control.is_thinking and control.loop is None


def test_the_budget_closes_the_reasoning() -> None:
    control = ThinkingControl(TOKENIZER, budget_tokens=3)
    assert generate(control, [OPEN, *[WORD] * 9])[:5] == [OPEN, WORD, WORD, WORD, CLOSE]
    assert control.thinking_tokens == 3
    assert generate(ThinkingControl(TOKENIZER, budget_tokens=0), [NEWLINE, OPEN, WORD]) == [NEWLINE, OPEN, CLOSE, WORD]


def test_an_answer_has_no_budget() -> None:
    wanted = [WORD, OPEN, *[WORD] * 9]
    control = ThinkingControl(TOKENIZER, budget_tokens=1)
    assert generate(control, wanted) == wanted and control.thinking_tokens == 0


def test_the_user_can_end_the_reasoning() -> None:
    control = ThinkingControl(TOKENIZER)
    tokens = [OPEN, WORD]
    assert control(tokens) == () and control.is_thinking
    control.end_thinking()
    assert control(tokens) == (CLOSE,)
    assert control([*tokens, CLOSE]) == () and not control.is_thinking
    assert control([*tokens, CLOSE, WORD]) == ()


def test_a_loop_in_the_reasoning_ends_it() -> None:
    control = ThinkingControl(TOKENIZER, guard=LoopGuard(block_tokens=2, repeats=3))
    tokens = generate(control, [OPEN, *[WORD, NEWLINE] * 50], limit=20)
    assert tokens[:8] == [OPEN, *[WORD, NEWLINE] * 3, CLOSE]
    # The answer is watched anew.
    assert control.loop == "answer"


def test_a_loop_in_the_answer_is_reported_and_nothing_forced() -> None:
    control = ThinkingControl(TOKENIZER, guard=LoopGuard(block_tokens=2, repeats=3))
    tokens = generate(control, [WORD, NEWLINE] * 10)
    assert tokens == [WORD, NEWLINE] * 10 and control.loop == "answer"
