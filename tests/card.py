"""A graphics card that is not there: fake CUDA tensors, and a count of everything that would make the host wait for it.

``with card() as seen:`` makes ``device="cuda"`` work on any build of torch. Tensors have shapes and devices but no
numbers (``FakeTensorMode``), so a whole training step with its backward pass costs what its Python does; tensors of two
devices in one operation raise. What would be a synchronisation on a real card (a copy between host and card, a value
asked for by the host, an index that lies in host memory) is noted in ``seen.waits`` with the line that asked. A value
that the host asks for is 1.

Autograd needs a device guard for the card's streams, which a CPU build has not: the one for ``meta`` tensors, which
does nothing, stands in for it, and the engine runs in the calling thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from tips_dist import tensors

CUDA, META = 1, 14  # c10::DeviceType
HERE = Path(__file__)
aten, prim = torch.ops.aten, torch.ops.prim
COPIES = {aten._to_copy.default, aten.copy_.default}
SHAPED_BY_VALUES = {aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.unique_dim.default}
ASKED = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


@dataclass
class Seen:
    """What would have made the host wait: (kind, operation, line of ours that asked)."""

    waits: list[tuple[str, str, str]] = field(default_factory=list)
    operations: int = 0

    def take(self) -> list[tuple[str, str, str]]:
        """What was seen since the last call."""
        found, self.waits = self.waits, []
        return found

    def lines(self) -> Counter[str]:
        """How often each line of ours made the host wait."""
        return Counter(f"{where}: {kind} ({name})" for kind, name, where in self.waits)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes waits; inside the autograd engine it tells C++ that the card's tensors are ``meta`` (see the module)."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen, self.in_engine = seen, False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is prim.device.default:
            return torch.device("meta") if self.in_engine and _on_card(args[0]) else func(*args, **options)
        if func in (aten.to.device, aten.to.dtype_layout):  # in inference mode they come whole
            names = [argument.name for argument in func._schema.arguments]
            asked = {**dict(zip(names, args, strict=False)), **options}
            tensor, where, kind = asked["self"], asked.get("device"), asked.get("dtype")
            if where is not None and where.type == "cuda":
                if _on_card(tensor) and kind in (None, tensor.dtype):
                    return tensor
                return self.__torch_dispatch__(
                    aten._to_copy.default, types, (tensor,), {"dtype": kind, "device": where}
                )
        if options.get("device") in (torch.device("meta"), torch.device("cuda")):  # what the guard makes of "cuda"
            options["device"] = torch.device("cuda", 0)
        self.seen.operations += 1
        kind = _kind(func, args, options)
        if kind is not None:
            self.note(kind, func.__name__)
        try:
            return func(*args, **options)
        except DataDependentOutputException:
            return 1

    def note(self, kind: str, name: str) -> None:
        ours = [
            frame
            for frame in traceback.extract_stack()
            if "/tips_dist/" in frame.filename or ("/tests/" in frame.filename and Path(frame.filename) != HERE)
        ]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
        self.seen.waits.append((kind, name, where))


def _on_card(value: Any) -> bool:
    return isinstance(value, FakeTensor) and value.fake_device.type == "cuda"


def _in_memory(value: Any) -> bool:
    return isinstance(value, Tensor) and not _on_card(value)


def _kind(func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> str | None:
    """Why the host would wait, or None."""
    tensors = [one for arg in args for one in (arg if isinstance(arg, (list, tuple)) else [arg])]
    there = any(_on_card(one) for one in tensors)
    if func in COPIES:
        source = args[1] if func is aten.copy_.default else args[0]
        target = args[0] if func is aten.copy_.default else options.get("device")
        to_card = _on_card(target) if isinstance(target, Tensor) else target is not None and target.type == "cuda"
        if to_card and _in_memory(source):
            return "copy to the card"
        to_host = target is not None and not to_card and target is not source
        return "copy to the host" if to_host and _on_card(source) else None
    if not there:
        return None
    if func in ASKED:
        return "value asked for"
    if func in SHAPED_BY_VALUES:
        return "shape from values"
    if func in INDEXED and any(_in_memory(one) for one in args[1]):
        return "index on the host"
    if func in INDEXED and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]):
        return "shape from values"
    if func is aten.where.self and any(_in_memory(one) for one in args):
        return "copy to the card"
    return None


@contextlib.contextmanager
def card() -> Iterator[Seen]:
    """Make ``device="cuda"`` work, with tensors that have no numbers; yields what makes the host wait."""
    seen = Seen()
    watch = _Watch(seen)
    engine = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def backward(*args: Any, **options: Any) -> Any:
        watch.in_engine = True
        try:
            return engine(*args, **options)
        finally:
            watch.in_engine = False

    def told(value: float) -> Callable[..., Any]:
        def numbers(tensor: Tensor, *_: Any, **__: Any) -> Any:
            if _on_card(tensor):
                watch.note("copy to the host", "tolist")
            return np.full(tuple(tensor.shape), value, np.dtype(str(tensor.dtype).removeprefix("torch.")))

        return numbers

    numbers, numpy = told(1), Tensor.numpy
    with contextlib.ExitStack() as stack:
        stack.enter_context(_guard())
        stack.callback(tensors.forget)
        tensors.forget()
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        for target, name, new in (
            (torch.autograd, "_engine_run_backward", backward),
            (FakeTensor, "tolist", lambda tensor: numbers(tensor).tolist()),
            (Tensor, "numpy", lambda t, **o: _numpy(t, numbers) if isinstance(t, FakeTensor) else numpy(t, **o)),
            (safetensors.torch, "save_file", _save),
            (safetensors.torch, "load_file", outside(safetensors.torch.load_file)),
            (nn.Module, "_apply", _apply),
            (torch.cuda, "get_device_capability", lambda device: (9, 0)),
            (torch.cuda, "is_bf16_supported", lambda: True),
            (torch.cuda, "synchronize", lambda device: None),  # once an evaluation, just before what waits anyway
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        ):
            stack.enter_context(mock.patch.object(target, name, new))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(watch)
        yield seen


def outside(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with real tensors in host memory, also inside :func:`card`."""

    def run(*args: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **options)

    return run


def _numpy(tensor: Tensor, numbers: Callable[[Tensor], Any]) -> Any:
    if _on_card(tensor):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    return numbers(tensor)


def _apply(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``nn.Module._apply``, which cannot put a fake tensor in the place of another."""
    for child in module.children() if recurse else ():
        child._apply(convert)  # type: ignore[no-untyped-call]
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                module._parameters[name] = nn.Parameter(convert(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else convert(buffer)
    return module


_save_file = safetensors.torch.save_file


def _save(content: Mapping[str, Tensor], *args: Any, **options: Any) -> None:
    """Write zeros of the same shapes."""
    assert not any(_on_card(tensor) for tensor in content.values())
    with _disable_current_modes():
        _save_file({name: torch.zeros(tuple(t.shape), dtype=t.dtype) for name, t in content.items()}, *args, **options)


@contextlib.contextmanager
def _guard() -> Iterator[None]:
    """Put the ``meta`` device's guard where torch looks for that of the card."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    before = guards[CUDA]
    guards[CUDA] = guards[META]
    try:
        yield
    finally:
        guards[CUDA] = before
