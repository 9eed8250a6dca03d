import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.commands.repeats import cut_repeats, is_looping

LONG = "and so we went home "


@pytest.mark.parametrize(
    ("text", "kept", "dropped"),
    [
        (LONG * 3 + "at last", LONG + "at last", 2),
        (LONG * 2 + "at last", LONG * 2 + "at last", 0),
        (LONG * 3 + "and so we went h", LONG.strip(), 2),
        (LONG * 3 + "and so it was", LONG + "and so it was", 2),
        ("Thank you very much. Thank you very much. thank you very much!", "Thank you very much.", 2),
        ("no, no, no, I said no", "no, no, no, I said no", 0),
        ("la " * 20 + "end", "la end", 19),
        ("谢谢大家" * 5, "谢谢大家", 4),
        ("start " + "a b " * 8 + "stop", "start a b stop", 7),
        ("", "", 0),
    ],
)
def test_loops_are_cut_to_one_copy(text: str, kept: str, dropped: int) -> None:
    assert cut_repeats(text) == (kept, dropped)


def test_text_without_a_loop_is_returned_to_the_byte() -> None:
    text = "  two  blanks\nand a line.\n"
    assert cut_repeats(text) == (text, 0)


def test_a_loop_is_noticed_when_its_third_copy_is_complete() -> None:
    text = LONG * 3
    assert is_looping(text)
    assert not is_looping(text[:-6])
    assert not is_looping("no no no")
    assert is_looping("no " * 8)


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=40))
def test_cutting_keeps_words_in_order_and_counts_what_it_drops(words: list[str]) -> None:
    kept, dropped = cut_repeats(" ".join(words))
    left = kept.split()
    assert (dropped == 0) == (left == words)
    remaining = iter(words)
    assert all(word in remaining for word in left)
    assert set(left) == set(words)
