"""What training puts in the place of media is what the runtime's towers say about the same media."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from mimo_cli.chat.media_options import MediaOptions
from mimo_cli.media.image import preprocess_image
from mimo_cli.media.mel import log_mel
from mimo_cli.media.video import preprocess_video
from training.data.sample import Film, Picture, Sample, Sound, Split
from training.export import Parts
from training.media import ReadyGroup, make_ready, ready_group, to_model_rate
from training.pool import Encoder, Pool, scene_group
from training.prompts import Prompter
from training.sight import Sight
from training.sources import Shelf


@pytest.fixture
def encoder(prompter: Prompter, small_parts: Parts) -> Encoder:
    sight = Sight(small_parts.vision, torch.float32, compiled=False)
    return Encoder(prompter, sight, small_parts.codec, Shelf())


def test_rows_of_pictures_and_films_are_the_towers(encoder: Encoder, small_parts: Parts) -> None:
    rng = np.random.default_rng(0)
    picture = Picture(rng.integers(0, 256, (120, 200, 3), np.uint8))
    film = Film(rng.integers(0, 256, (12, 96, 128, 3), np.uint8), 4.0)
    options = MediaOptions.of_checkpoint(encoder.prompter.config.processor)
    stubs = encoder.shelve([make_ready(film, options), make_ready(picture, options)])
    with torch.no_grad():
        values, grid = preprocess_image(picture.pixels, options.image)
        seen = small_parts.vision(torch.from_numpy(values), torch.from_numpy(grid))
        values, grid, times = preprocess_video(film.frames, film.fps, options.video)
        watched = small_parts.vision(torch.from_numpy(values), torch.from_numpy(grid))
    for stub, expected in ((stubs[1], seen), (stubs[0], watched)):
        assert stub.rows == len(expected)
        # Rows are kept in bfloat16, as the runtime's towers give them by default.
        torch.testing.assert_close(encoder.shelf.rows[stub.uid].float(), expected, atol=2e-2, rtol=2e-2)
    assert stubs[0].times_s == tuple(times[::2].tolist())


def test_codes_of_recordings_do_not_depend_on_their_company(encoder: Encoder, small_parts: Parts) -> None:
    rng = np.random.default_rng(0)
    sounds = [Sound(rng.standard_normal(n).astype(np.float32) * 0.1, 16_000) for n in (9_000, 31_000)]
    stubs = encoder.shelve([make_ready(sound, MediaOptions()) for sound in sounds])
    for sound, stub in zip(sounds, stubs, strict=True):
        mel = torch.from_numpy(log_mel(to_model_rate(sound.samples, sound.sample_rate)))
        codes = small_parts.codec.codes(mel)
        assert stub.rows == -(-len(codes) // 4)
        # The pool computes features in bfloat16; random code books are far apart, so few codes change sides.
        assert (encoder.shelf.codes[stub.uid] == codes)[:, 0].float().mean() > 0.9


def test_a_group_is_served_a_few_times_and_replaced(encoder: Encoder) -> None:
    made: list[int] = []

    def fetch(rng: np.random.Generator, split: Split) -> list[ReadyGroup]:
        made.append(len(made))
        return [ready_group([Sample("t", (f"{len(made)} {i}",), "a")], MediaOptions()) for i in range(4)]

    pool = Pool(encoder, fetch, size=4, uses=2)
    rng = np.random.default_rng(0)
    served = [pool(rng, "train")[0].ids.tobytes() for _ in range(40)]
    assert max(served.count(one) for one in served) == 2
    assert len(made) >= 5
    before = len(made)
    pool.top_up(rng)
    pool.top_up(rng)
    assert len(made) <= before + 1  # filled up once, and full from then on
    for _ in range(4):  # half of what is there is used up before more is drawn in between
        pool(rng, "train")
    assert len(made) <= before + 1


def test_media_shared_by_samples_are_made_ready_once() -> None:
    picture, other = (Picture(np.full((96, 96, 3), level, np.uint8)) for level in (0, 255))
    samples = [Sample("t", (picture, "a"), "b"), Sample("t", ("a", other, picture), "b")]
    group = ready_group(samples, MediaOptions())
    assert len(group.media) == 2 and group.used == ((0,), (1, 0))
    assert [part for part in group.samples[1].user if isinstance(part, str)] == ["a"]


def test_questions_of_one_scene_share_its_picture() -> None:
    def groups() -> Iterator[list[Sample]]:
        rng = np.random.default_rng(1)
        while True:
            yield scene_group(rng, "train")

    found = [group for group, _ in zip(groups(), range(12), strict=False)]
    assert all(len({id(part) for s in g for part in s.user if not isinstance(part, str)}) == 1 for g in found)
    assert max(map(len, found)) == 4


def test_a_dialogue_about_a_picture_shows_it_once(encoder: Encoder) -> None:
    options = MediaOptions.of_checkpoint(encoder.prompter.config.processor)
    groups = (scene_group(np.random.default_rng(seed), "train") for seed in range(40))
    group = next(group for group in groups if group[-1].turns)
    ready = ready_group(group, options)
    assert len(ready.media) == 1 and all(used == (0,) for used in ready.used)
    (stub,) = encoder.shelve(list(ready.media))
    examples = [encoder.prompter.example(sample, [stub]) for sample in ready.samples]
    for before, after in pairwise(examples):
        assert (after.keys < 0).sum() == stub.rows
        assert (after.ids[: len(before)] == before.ids).all(), "what was said stands before what follows"
