"""A disk that misbehaves, and expert stores over it: stands in for the system's read."""

import errno
import os
import random
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.offload.expert_records import ExpertRecords
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.offload.shard_records import open_shard_records
from mimo_cli.store.opened import open_model
from tests.support.checkpoint_files import open_golden
from tests.support.kernels import kernels
from tests.support.stores import made_store

LAYER, EXPERTS, ACTIVE, HIDDEN = 1, 8, 4, 128


class FaultyDisk:
    """os.preadv with faults: `fails` says which reads, counted from 0, end with an error number; `shorten` cuts reads
    to random lengths; `flips` lists reads of which one byte is changed."""

    def __init__(self) -> None:
        self.fails: Callable[[int], int | None] = lambda read: None
        self.shorten: random.Random | None = None
        self.flips: set[int] = set()
        self.reads = 0
        self._lock = threading.Lock()

    def read_at(self, descriptor: int, buffers: list[memoryview], offset: int) -> int:
        """Read, or fail, as os.preadv would."""
        with self._lock:
            number, self.reads = self.reads, self.reads + 1
            length = self.shorten.randint(1, len(buffers[0])) if self.shorten else len(buffers[0])
        fault = self.fails(number)
        if fault is not None:
            raise OSError(fault, os.strerror(fault))
        count = os.preadv(descriptor, [buffers[0][:length]], offset)
        if number in self.flips and count > 40:
            buffers[0][40] ^= 0x10
        return count


def eio_at(*reads: int) -> Callable[[int], int | None]:
    """Return faults: an input/output error at some reads."""
    return lambda read: errno.EIO if read in reads else None


def open_records(kind: str, folder: Path | None = None) -> ExpertRecords:
    """Return the experts of the small MXFP4 checkpoint: of its shards, or of a packed store (of `folder`'s)."""
    if kind == "shards":
        config, reader = open_golden("text_mxfp4")
        records = open_shard_records(reader, config, kernels(), torch.float32)
    else:
        folder = folder or made_store("text_mxfp4")
        records = open_model(folder, ModelConfig.from_file(folder / "config.json")).records()
    assert records is not None
    return records


def open_store(kind: str, slots: int = EXPERTS, folder: Path | None = None, **reading: object) -> ExpertStore:
    """Return an expert store with room for some experts; `reading` are options of RecordSource."""
    source = RecordSource(open_records(kind, folder), **reading)  # type: ignore[arg-type]
    return ExpertStore(source, kernels(), "exact", range(4), EXPERTS, slots * source.slot_bytes, ACTIVE)


@cache
def step(tokens: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states [N, H], distinct expert ids [N, A] and weights [N, A]."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.rand(tokens, EXPERTS, generator=generator).topk(ACTIVE).indices
    return torch.randn(tokens, HIDDEN, generator=generator), ids, torch.rand(tokens, ACTIVE, generator=generator)


@cache
def answer(kind: str, tokens: int, seed: int) -> Tensor:
    """Return what a store with room for everything and a sound disk says."""
    store = open_store(kind)
    result = store.run(LAYER, *step(tokens, seed))
    store.close()
    return result
