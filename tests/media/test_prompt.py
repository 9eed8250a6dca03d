import pytest

from mimo_cli.media.prompt import Prompt, Span
from tests.support.fake_media import fake_audio, fake_image

CAT, TALK = fake_image(2), fake_audio(1)


def with_picture() -> Prompt:
    return Prompt((1, 9, 9, 2, 3), (Span(1, 2, 0, "vision"),), (CAT,))


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
