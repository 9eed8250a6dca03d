"""Feeder: samples drawn by several processes, for machines where drawing would keep a GPU waiting.

    feeder = Feeder({"pictures": make}, workers=12, seed=5)
    feeder.take("pictures")  ->  a chunk of what make(rng, "train") gives

What a process draws depends on the seed and its number alone; who answers first does not, so runs with workers are not
repeatable sample by sample. Without workers nothing of this is used.
"""

import multiprocessing
import signal
from collections.abc import Callable, Mapping
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import torch

from training.data.sample import Split
from training.sources import Group, Source

Make = Callable[[np.random.Generator, Split], Any]
CHUNK = 48
_AHEAD = 3
"""Chunks of each kind that are drawn before anybody asks."""


class Feeder:
    """Processes that draw chunks of named kinds; `close` ends them. Start it before anything touches a GPU."""

    def __init__(self, makers: Mapping[str, Make], workers: int, seed: int) -> None:
        context = multiprocessing.get_context("fork")
        self._wanted: Queue[str] = context.Queue()
        self._drawn: dict[str, Queue[Any]] = {name: context.Queue() for name in makers}
        self._workers = [
            context.Process(target=_work, args=(makers, self._wanted, self._drawn, (seed, number)), daemon=True)
            for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()
        for _ in range(_AHEAD):
            for name in makers:
                self._wanted.put(name)

    def take(self, name: str) -> list[Any]:
        """A chunk of CHUNK samples of a kind; another one is ordered. Raises what drawing raised."""
        self._wanted.put(name)
        found = self._drawn[name].get()
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.terminate()
            worker.join()
        self._wanted.cancel_join_thread()  # orders nobody will read


def _work(makers: Mapping[str, Make], wanted: Any, drawn: Mapping[str, Any], seed: tuple[int, int]) -> None:
    """Draw what is wanted, for ever."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a stage's own handler must not be inherited
    rng = np.random.default_rng(seed)
    while True:
        name = wanted.get()
        try:
            drawn[name].put([makers[name](rng, "train") for _ in range(CHUNK)])
        except Exception as err:
            drawn[name].put(err)


class FedSource:
    """A source whose training groups come from a feeder; held-out ones are drawn here."""

    def __init__(self, feeder: Feeder, name: str, local: Source) -> None:
        self._feeder, self._name, self._local = feeder, name, local
        self._groups: list[Group] = []

    def __call__(self, rng: np.random.Generator, split: Split) -> Group:
        """Satisfy Source."""
        if split != "train":
            return self._local(rng, split)
        if not self._groups:
            self._groups = self._feeder.take(self._name)
        return self._groups.pop()
