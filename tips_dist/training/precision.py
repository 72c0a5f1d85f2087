"""Which matrix products to use: the fastest backend that is exact here, or a named lower precision.

torch's default float32 product on a CPU is MKL's. oneDNN's is faster for all but small matrices, and torch reaches it
through ``set_float32_matmul_precision("medium")``, which permits rounding to bfloat16: on CPUs without AMX nothing is
rounded. So the result is measured at start-up rather than trusted by name. The choice follows from that and the width
alone, never from a clock, so that it is the same each time; a checkpoint records it.

A lower precision needs hardware for it: without, a library imitates it, many times slower than float32
(:func:`effective` then runs float32 and says so).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Literal

import torch

Backend = Literal["default", "onednn", "tf32"]
Precision = Literal["float32", "tf32", "bf16"]
AMPERE = (8, 0)  # compute capability from which cards have tensor cores for tf32 and bfloat16
BF16_UNITS = ("avx512_bf16", "amx_bf16", "avx_ne_convert")  # of x86 processors
ONEDNN_FROM_WIDTH = 128  # below, its overhead per call is larger than its gain (benchmarks/README.md)


def effective(asked: Precision, device: torch.device) -> tuple[Precision, str]:
    """The precision of products that runs here, and a word where it is not the one asked for."""
    if asked == "float32":
        return asked, ""
    if device.type != "cuda":
        if asked == "bf16" and not bf16_units():
            return "float32", "training.precision: this processor has no bf16 units; bf16 runs as float32 here"
        return asked, ""  # tf32 is float32 on a processor, as the knob says
    capability = torch.cuda.get_device_capability(device)
    if capability < AMPERE:
        card = f"{torch.cuda.get_device_name(device)} (compute capability {'.'.join(map(str, capability))})"
        return "float32", f"training.precision: {card} has no {asked} units; {asked} runs as float32 here"
    return asked, ""


@functools.cache
def bf16_units() -> bool:
    """Whether this processor multiplies bfloat16 itself: by oneDNN's word, and on x86 by what the processor says.

    oneDNN takes bfloat16 from AVX-512 on and imitates it where there are no instructions for it.
    """
    library = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not library or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return able.get("architecture") not in ("x86_64", "AMD64") or any(able.get(unit) for unit in BF16_UNITS)


def choose(precision: str, width: int, device: torch.device) -> Backend:
    """The backend of float32 products for networks of this width."""
    if device.type == "cuda":
        return "tf32" if precision == "tf32" else "default"
    return "onednn" if width >= ONEDNN_FROM_WIDTH and onednn_is_exact() else "default"


def known(recorded: str, chosen: Backend) -> Backend:
    """The backend that a checkpoint recorded, so that a run goes on as it began, unless it is not exact here."""
    if recorded == "onednn" and not onednn_is_exact():
        return chosen
    backends: tuple[Backend, ...] = ("default", "onednn", "tf32")
    return next((backend for backend in backends if backend == recorded), chosen)


@contextlib.contextmanager
def applied(backend: Backend) -> Iterator[None]:
    """Use ``backend`` inside the context; torch's own setting is global, so it is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision({"default": "highest", "onednn": "medium", "tf32": "high"}[backend])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def onednn_is_exact() -> bool:
    """Whether oneDNN's product has float32's accuracy here: its error is at most four times the default one's."""
    with applied("default"):
        default = product_error()
    with applied("onednn"):
        return product_error() <= 4 * default


def product_error() -> float:
    """Largest error of a batched product under the present setting, relative to its largest value."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(2, 256, 256, generator=generator) for _ in range(2))
    exact = first.double() @ second.double()
    return float((torch.bmm(first, second) - exact).abs().max() / exact.abs().max())
