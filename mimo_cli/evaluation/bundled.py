"""The held-out questions and the text that come with the package, and the tasks there are."""

from pathlib import Path

TASKS = ("pictures", "words", "speech", "sounds", "video", "text", "needle", "tools", "mixed")
"""The tasks of the bundled questions, in the order in which they are asked."""

NEEDLES, NEEDLE_TOKENS = 25, 4096


def items_folder() -> Path:
    """Return the folder of the bundled questions."""
    return Path(__file__).with_name("data")


def text_file() -> Path:
    """Return the text whose perplexity is measured where no other is named."""
    return items_folder() / "text.txt"
