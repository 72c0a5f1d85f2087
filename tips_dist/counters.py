"""Random numbers by counting: number n of a stream is a function of the stream's key and n, the same on every device.

SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"): ``mix(key + n * GAMMA)``, in
int64, whose products wrap around. There is no generator to seed, to carry or to wait for: a key per seed goes to the
device once, a step counts on there. ``torch.Generator`` gives other numbers on a card than on a processor.

Words are 64 bits: :func:`words` of a key, cut into 16 bits each where a share of all is to be chosen
(:func:`chosen`), or made normally distributed (:func:`normal`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def _signed(word: int) -> int:
    return (word & (2**64 - 1)) - (word >> 63 << 64)


GAMMA = _signed(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd: n * GAMMA takes every value once
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
LANES = 4  # of 16 bits in a word
STEPS = _signed(0xD1342543DE82EF95)  # another odd number, to count steps with


def keys(seeds: Sequence[int], purpose: str, device: torch.device) -> Tensor:
    """The key of each seed's stream for a purpose, (S,) int64."""
    words = [hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8] for seed in seeds]
    return torch.tensor([int.from_bytes(word, "little", signed=True) for word in words], device=device)


def at(keys: Tensor, step: Tensor | int) -> Tensor:
    """The keys of the streams of one step, (S,): streams of different steps have nothing to do with each other."""
    return _mix(keys + (_wrapped(step * STEPS) if isinstance(step, int) else step * STEPS))


def words(keys: Tensor, first: int, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Words of each stream: (S,) -> (S, *shape); the one at (i, j, …) has number first + i * strides[0] + ….

    With strides a worker takes its share of what all workers together draw.
    """
    place = (keys + _wrapped(first * GAMMA)).view(-1, *[1] * len(shape))
    for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        counted = torch.arange(size, device=keys.device) * _wrapped(stride * GAMMA)
        place = place + counted.view(-1, *[1] * (len(shape) - 1 - axis))
    return _mix(place)


def drawn(words: Tensor, probability: float) -> Tensor:
    """Choose with a probability (to 2^-16), four numbers a word: (…, N) -> (…, 4 N) bool."""
    limit = min(round(probability * 2**16), 2**16 - 1) - 2**15  # of a signed number of 16 bits
    return words.view(torch.int16) < limit


def normal(words: Tensor) -> Tensor:
    """Normal numbers, two a word (Box and Muller 1958): (…, N) -> (…, 2 N) float32."""
    high, low = (words >> 40).float(), (words & (2**24 - 1)).float()  # 24 bits each, which a float holds exactly
    radius = ((high + (2**23 + 0.5)) * 2.0**-24).log_().mul_(-2).sqrt_()
    angle = low * (2 * math.pi * 2.0**-24)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten(-2)


def _wrapped(number: int) -> int:
    return _signed(number % 2**64)


def _mix(words: Tensor) -> Tensor:
    """SplitMix64's finaliser; it overwrites its argument."""
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        high = words >> shift
        high &= 2 ** (64 - shift) - 1  # a shift of signed numbers drags the sign along
        words ^= high
        if factor != 1:
            words *= factor
    return words
