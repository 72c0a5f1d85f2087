"""Random numbers by counting: SplitMix64's own numbers, and none that knows another."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tips_dist import counters

CPU = torch.device("cpu")
WORD = 2**64


def splitmix(state: int) -> int:
    """The published function, in whole numbers."""
    word = state % WORD
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % WORD
    return word ^ (word >> 31)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63), st.integers(0, 2**40))
def test_words_are_splitmix64s(key: int, first: int, stride: int) -> None:
    found = counters.words(torch.tensor([key]), first, (2, 3), (stride, 1))
    gamma = 0x9E3779B97F4A7C15
    expected = [[splitmix(key + (first + stride * i + j) * gamma) for j in range(3)] for i in range(2)]
    assert [[word % WORD for word in row] for row in found[0].tolist()] == expected


def test_the_first_word_of_seed_0_is_the_published_one() -> None:
    (word,) = counters.words(torch.tensor([0]), 1, (1,), (1,))[0].tolist()
    assert word % WORD == 0xE220A8397B1DCDAF


@given(st.integers(0, 10**9))
def test_a_step_is_the_same_number_or_on_the_device(step: int) -> None:
    keys = counters.keys([1, 2], "x", CPU)
    assert torch.equal(counters.at(keys, step), counters.at(keys, torch.tensor(step)))


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 1 - 1e-9])
def test_so_many_are_chosen(probability: float) -> None:
    words = counters.words(counters.keys([0, 1], "x", CPU), 0, (40_000,), (1,))
    shares = counters.drawn(words, probability).float().mean(1)
    assert shares.tolist() == pytest.approx([probability] * 2, abs=4 * math.sqrt(0.25 / 160_000))


def test_seeds_steps_purposes_and_neighbours_are_unrelated() -> None:
    keys = counters.keys([0, 1], "x", CPU)
    streams = [*keys, *counters.at(keys, 0), *counters.at(keys, 1), *counters.keys([0, 1], "y", CPU)]
    drawn = counters.normal(counters.words(torch.stack(streams), 0, (20_000,), (1,)))
    between = torch.corrcoef(drawn) - torch.eye(len(drawn))
    lagged = torch.stack([(row[1:] * row[:-1]).mean() for row in drawn])
    assert between.abs().max() < 5 / math.sqrt(40_000)
    assert lagged.abs().max() < 5 / math.sqrt(40_000)


def test_normal_numbers_are_normal() -> None:
    drawn = counters.normal(counters.words(counters.keys([3], "noise", CPU), 0, (100_000,), (1,)))[0].double()
    moments = [drawn.pow(power).mean().item() for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.05)
    below = [(drawn < edge).double().mean().item() for edge in (-2, -1, 0, 1, 2)]
    assert below == pytest.approx([0.02275, 0.15866, 0.5, 0.84134, 0.97725], abs=0.004)
    assert drawn.abs().max() < 6
