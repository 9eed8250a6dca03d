from collections import Counter
from itertools import chain

import pytest

from mimo_cli.chat.attachments import MediaOpener
from mimo_cli.evaluation.bundled import NEEDLES, TASKS, items_folder, text_file
from mimo_cli.evaluation.item import Item, read_items

MAX_BYTES = 8_000_000
FROM_FILES = tuple(task for task in TASKS if task != "needle")


@pytest.fixture(scope="module")
def items() -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {task: [] for task in FROM_FILES}
    for item in read_items(items_folder()):
        found[item.task].append(item)
    return found


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in items_folder().iterdir()) <= MAX_BYTES


def test_every_judged_task_has_200_questions_in_its_main_figure(items: dict[str, list[Item]]) -> None:
    for task in ("pictures", "words", "speech", "video", "text", "tools"):
        assert sum(not item.group for item in items[task]) >= 200, task
    assert NEEDLES >= 20 and items["sounds"] and items["mixed"]


def test_speech_is_also_heard_in_unseen_voices_and_in_noise(items: dict[str, list[Item]]) -> None:
    groups = Counter(item.group for item in items["speech"])
    assert groups.keys() == {"", "unseen", "noise"} and min(groups.values()) >= 100
    assert {item.scoring for item in items["speech"]} == {"words"}


def test_no_two_questions_have_one_id(items: dict[str, list[Item]]) -> None:
    ids = [item.id for item in chain(*items.values())]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("task", FROM_FILES)
def test_media_open_and_every_archive_holds_what_is_asked_for(items: dict[str, list[Item]], task: str) -> None:
    opener = MediaOpener()
    for item in items[task][::20]:
        assert item.read(opener)[-1].role in ("user", "tool")
    for item in items[task]:
        parts = chain.from_iterable(m["content"] for m in item.messages if isinstance(m.get("content"), list))
        for part in parts:
            assert item.files is not None and ("path" not in part or item.files.read(part["path"]))


def test_pictures_have_many_sizes_and_sounds_many_forms(items: dict[str, list[Item]]) -> None:
    names = [
        part["path"]
        for item in chain(items["pictures"], items["speech"])
        for part in item.messages[-1]["content"]
        if "path" in part
    ]
    endings = Counter(name.rpartition(".")[2] for name in names)
    assert endings.keys() == {"png", "jpg", "ogg", "wav"} and min(endings.values()) >= 5
    sizes = {item.read(MediaOpener())[-1].media[0].media.grid_thw for item in items["pictures"][::10]}
    assert len(sizes) >= 10


def test_the_text_is_long_enough_to_measure() -> None:
    assert 5_000 < len(text_file().read_text("utf-8")) < 60_000
