import pytest

from mimo_cli.media.prompt import Prompt, Span
from tests.support.fake_media import fake_audio, fake_image

CAT, DOG, TALK = fake_image(2), fake_image(2, "dog.png"), fake_audio(1)


def with_picture(picture=CAT, tail: tuple[int, ...] = (3,)) -> Prompt:
    return Prompt((1, 9, 9, 2, *tail), (Span(1, 2, 0, "vision"),), (picture,))


@pytest.mark.parametrize(
    "spans",
    [
        (Span(3, 2, 0, "vision"),),
        (Span(0, 0, 0, "vision"),),
        (Span(0, 1, 1, "vision"),),
        (Span(0, 1, 0, "vision", -1),),
        (Span(0, 2, 0, "vision"), Span(1, 1, 0, "vision")),
        (Span(2, 1, 0, "vision"), Span(0, 1, 0, "vision")),
    ],
)
def test_spans_that_overlap_or_leave_the_ids_are_a_mistake_of_ours(spans: tuple[Span, ...]) -> None:
    with pytest.raises(ValueError, match="Span"):
        Prompt((1, 2, 3, 4), spans, (CAT,))


def test_a_prompt_counts_its_ids() -> None:
    assert len(with_picture()) == 5 and Span(1, 2, 0, "vision").stop == 3


def test_an_answer_follows_without_new_spans() -> None:
    longer = with_picture().followed_by((7, 8))
    assert longer.ids == (1, 9, 9, 2, 3, 7, 8) and longer.spans == with_picture().spans and longer.items == (CAT,)


def test_a_head_keeps_the_spans_and_items_that_lie_in_it() -> None:
    spans = (Span(1, 2, 0, "vision"), Span(5, 1, 1, "audio"))
    prompt = Prompt((1, 9, 9, 2, 3, 8, 4), spans, (CAT, TALK))
    assert prompt.head(4) == Prompt((1, 9, 9, 2), spans[:1], (CAT,))
    assert prompt.head(1) == Prompt((1,)) and prompt.head(7) == prompt and prompt.head(0) == Prompt(())
    with pytest.raises(ValueError, match="Span"):
        prompt.head(2)


def test_prompts_share_what_is_equal_from_the_start() -> None:
    assert Prompt((1, 2, 3)).shared_prefix_tokens(Prompt((1, 2, 4))) == 2
    assert Prompt((1, 2)).shared_prefix_tokens(Prompt((1, 2, 3))) == 2
    assert Prompt(()).shared_prefix_tokens(Prompt((1,))) == 0
    assert with_picture().shared_prefix_tokens(with_picture(tail=(3, 4))) == 5


def test_two_pictures_of_one_size_are_not_the_same_input() -> None:
    assert with_picture(CAT).shared_prefix_tokens(with_picture(DOG)) == 1
    assert with_picture(CAT).shared_prefix_tokens(Prompt(with_picture().ids)) == 1
    assert Prompt(with_picture().ids).shared_prefix_tokens(with_picture(CAT)) == 1


def test_other_rows_of_the_same_item_are_not_the_same_input() -> None:
    shifted = Prompt(with_picture().ids, (Span(1, 2, 0, "vision", 2),), (CAT,))
    assert with_picture().shared_prefix_tokens(shifted) == 1


def test_ids_that_differ_before_a_span_end_the_shared_part_there() -> None:
    other = Prompt((0, 9, 9, 2, 3), (Span(1, 2, 0, "vision"),), (CAT,))
    assert with_picture().shared_prefix_tokens(other) == 0
