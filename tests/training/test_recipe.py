"""The whole recipe, a step or two of every stage: what comes out is a model that the program loads and answers with."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mimo_cli import api
from training.recipe import STAGES, Recipe
from training.settings import Rows, Settings, TrunkSettings

SMALL = Rows(1, 192, 1.0, {"drills": 1.0, "pictures": 1.0, "spoken words": 1.0, "video": 1.0})


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of noises that claim to be words."""
    folder = tmp_path / "out" / "speech"
    folder.mkdir(parents=True)
    rng, entries, start = np.random.default_rng(0), [], 0
    for number in range(48):
        length = int(rng.integers(6_000, 12_000))
        entry = {"start": start, "length": length, "text": ("red", "blue")[number % 2], "kind": "word", "voice": "x"}
        entries.append({**entry, "ends_ms": [length // 16]})
        start += length
    np.save(folder / "clips_00000.npy", (rng.standard_normal(start) * 3000).astype(np.int16))
    (folder / "clips_00000.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.slow
def test_every_stage_runs_and_the_export_answers(clips: Path, tmp_path: Path) -> None:
    start = Settings()
    step = TrunkSettings(1, (SMALL,), evaluate_every=1000)
    settings = dataclasses.replace(
        start,
        compiled=False,
        clips_for_code_books=32,
        vision=dataclasses.replace(start.vision, steps=1, batch=2),
        audio=dataclasses.replace(start.audio, steps=1, batch=4),
        text=TrunkSettings(1, (Rows(1, 96, 1.0, {"drills": 1.0}),)),
        mix=dataclasses.replace(step, fp8_from=0.0),
        mtp=dataclasses.replace(start.mtp, steps=1),
    )
    for number, stage in enumerate(STAGES):
        Recipe(clips.parent, settings, workers=number % 2).run(stage)  # with and without processes that draw
    Recipe(clips.parent, settings).export(tmp_path / "model")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((100, 100, 3), 200, np.uint8))
    engine = api.load(tmp_path / "model")
    assert len(engine.draft_logits([1, 2, 3])) == 3
    parts = [{"type": "image", "image": str(tmp_path / "a.png")}, {"type": "text", "text": "What is this?"}]
    *_, finished = engine.chat([{"role": "user", "content": parts}], max_tokens=3, thinking=False)
    assert finished.message.role == "assistant"
