"""Filling modules: networks are built on the meta device, without memory, then get their weights tensor by tensor.

Peak memory is what stays resident and one tensor more: each matrix is read from its mapped shard, packed for the native
kernels or dequantised to the module's dtype, and assigned, never copied again.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.engine.memory import available_bytes
from mimo_cli.errors import CapacityError
from mimo_cli.model.binding import Binding
from mimo_cli.quant.kernels import Kernels
from mimo_cli.quant.pack import pack
from mimo_cli.quant.stored import StoredMatrix
from mimo_cli.units import format_bytes

OnLoad: TypeAlias = Callable[[int, int], None]
"""Told bytes loaded and bytes in all."""

ReplaceLinear: TypeAlias = Callable[[nn.Module, str, Tensor], bool]
"""Given a module, the name of a parameter and its value: puts a layer that holds it in the place, or returns False."""

_EMBEDDING = "embed_tokens.weight"
"""A token reads one row of it: it stays in its file where that has the network's dtype, a gigabyte less to load."""

_Module = TypeVar("_Module", bound=nn.Module)


class _NoInit(TorchFunctionMode):
    """Leaves parameters as they are: random numbers without memory make torch load its compiler, a second of work."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def build_empty(make: Callable[[], _Module], dtype: torch.dtype | None = None) -> _Module:
    """Build a module whose parameters have shapes and dtypes but no memory; `dtype` converts what may be converted."""
    with torch.device("meta"), _NoInit():
        module = make()
    return module.to(dtype) if dtype else module


def module_bytes(modules: Iterable[nn.Module]) -> int:
    """Return the bytes that the parameters and buffers of some modules take when filled."""
    return sum(value.nbytes for module in modules for value in module.state_dict().values())


def require_memory(needed_bytes: int, what: str) -> None:
    """Raise CapacityError, with the numbers, where some memory cannot be had."""
    free_bytes = available_bytes()
    if needed_bytes > free_bytes:
        raise CapacityError(
            f"{what} needs {format_bytes(needed_bytes)} of memory, {format_bytes(free_bytes)} are free",
            hint="close other programs, load with dtype bfloat16, or use a machine with more memory",
        )


class Loader:
    """Fills modules from checkpoints and counts the bytes for whoever shows progress.

    `kernels` pack what bindings want packed. Files are mapped, and let go as they are copied; where memory `is_tight`,
    the system's cache of them is given back, too.
    """

    def __init__(
        self,
        total_bytes: int,
        on_load: OnLoad | None = None,
        kernels: Kernels | None = None,
        *,
        is_tight: bool = False,
    ) -> None:
        self.is_tight = is_tight
        self.total_bytes = total_bytes
        self.loaded_bytes = 0
        self._on_load = on_load
        self._kernels = kernels

    def bind(
        self,
        module: nn.Module,
        reader: CheckpointReader,
        bindings: Iterable[Binding],
        where: torch.device | None = None,
        replace: ReplaceLinear | None = None,
    ) -> None:
        """Fill a module as its bindings say. Raises CheckpointError naming tensor and shard.

        where: the device of its tensors, but for the table of embeddings, of which a token reads one row. replace: may
        put another layer in the place of a Linear.
        """
        filled: dict[str, Tensor] = {}
        by_source: dict[str, Tensor] = {}
        for binding in bindings:
            if binding.tensor not in by_source:  # tied weights are read once
                by_source[binding.tensor] = self._read(reader, binding)
                reader.drop(_stored_names(binding), from_cache=self.is_tight)
            value = by_source[binding.tensor]
            self._count(value)
            if replace is None or not replace(module, binding.parameter, value):
                is_here = where is None or binding.parameter == _EMBEDDING
                filled[binding.parameter] = value if is_here else value.to(where)
        _assign(module, filled)

    def bind_prefix(self, module: nn.Module, reader: CheckpointReader, prefix: str) -> None:
        """Fill a module whose parameters have the checkpoint's names without `prefix`."""
        filled = {}
        for name, value in module.state_dict().items():
            filled[name] = reader.read(prefix + name, value.dtype, shape=tuple(value.shape))
            self._count(value)
        _assign(module, filled)

    def _read(self, reader: CheckpointReader, binding: Binding) -> Tensor:
        if binding.packed is not None and self._kernels is not None:
            is_fused = binding.kind == "qkv"
            ready = reader.own_packed(f"{binding.tensor}.qkv_proj.weight" if is_fused else binding.tensor)
            if ready is not None:
                return ready
            return pack(self._kernels, binding.packed, stored_parts(reader, binding))
        if binding.kind == "qkv" and binding.attention is not None:
            return reader.qkv(binding.tensor, binding.attention, binding.dtype)
        if binding.tensor.endswith(_EMBEDDING):
            table = reader.mapped(binding.tensor, binding.dtype)
            if table is not None and tuple(table.shape) == binding.shape:
                return table
        return reader.read(binding.tensor, binding.dtype, shape=binding.shape)

    def _count(self, tensor: Tensor) -> None:
        self.loaded_bytes += tensor.nbytes
        if self._on_load:
            self._on_load(self.loaded_bytes, self.total_bytes)


def stored_parts(reader: CheckpointReader, binding: Binding) -> list[StoredMatrix]:
    """Return what the checkpoint has for a binding: one tensor, or the parts of q, k and v one above the other."""
    if binding.kind == "qkv" and binding.attention is not None:
        return reader.stored_qkv(binding.tensor, binding.attention)
    return [reader.stored(binding.tensor)]


def _stored_names(binding: Binding) -> list[str]:
    if binding.kind != "qkv":
        return [] if binding.tensor.endswith(_EMBEDDING) else [binding.tensor]
    return [f"{binding.tensor}.{part}.weight" for part in ("qkv_proj", "q_proj", "k_proj", "v_proj")]


def _assign(module: nn.Module, filled: dict[str, Tensor]) -> None:
    unexpected = module.load_state_dict(filled, strict=False, assign=True).unexpected_keys
    empty = [name for name, value in module.state_dict().items() if isinstance(value, Tensor) and value.is_meta]
    if unexpected or empty:
        raise RuntimeError(f"bindings do not fit the module: {unexpected} are not in it, {empty} stay empty")
    module.requires_grad_(False)
    module.eval()
