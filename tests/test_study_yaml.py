"""YAML from anybody: what it means, and how little it can make of a reader."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tips_dist.files import UserError
from tips_dist.study_yaml import MOST_NODES, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5e3", 1500.0),
        ("-.5", -0.5),
        (".inf", float("inf")),
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("2026-11-25", "2026-11-25"),
        ("2020-13-45", "2020-13-45"),
        ("1:30", "1:30"),
        ("0", 0),
        ("-12", -12),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("~", None),
        ("'010'", "010"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
    ],
)
def test_scalars_mean_what_people_mean(text: str, value: Any) -> None:
    found = load_yaml(f"x: {text}", "study.yaml")["x"]
    assert found == value
    assert type(found) is type(value)


CHAIN = "k0: &k0 1\n" + "".join(f"k{n}: &k{n} [*k{n - 1}]\n" for n in range(1, 50))
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: 010", "write 10"),
        ("x: " + "9" * 400, "a number of 400 digits"),
        ("x: !!int abc", "'abc' is not of kind int"),
        ("x: !!float abc", "'abc' is not of kind float"),
        ("x: !!map 3", "is not of kind map"),
        ("x: !!seq {a: 1}", "is not of kind seq"),
        ("x: !!python/object/apply:os.system [id]", "is not for study files"),
        ("x: !!binary aGk=", "is not for study files"),
        ("x: !!timestamp 2020-01-01", "is not for study files"),
        ("? [1]\n: 2", "a key must be a word"),
        ("a: 1\na: 2", "the key 'a' stands twice"),
        ("a: &a [*a]", "an alias stands inside of what it names"),
        ("x: " + "[" * 900 + "]" * 900, "nested deeper"),
        ("x: " + "[" * 300_000, "nested deeper"),
        ("- " * 900 + "x", "nested deeper"),
        (CHAIN, "nested deeper"),
        (LAUGHS, "unfolds to more than"),
        ("x: [" + "1," * (MOST_NODES + 1) + "]", "more than 20000 values"),
        ("x" * 2**20 + "x", "more than 1048576 characters"),
        ("\x00", "unacceptable character"),
        ("--- a\n--- b", "another document"),
    ],
)
def test_what_is_no_study_file_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_yaml(text, "study.yaml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("study.yaml:")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


WORDS = ("a", "b: ", "- ", "[", "]", "{", "}", ": ", ", ", "\n", "  ", "&x ", "*x", "!!int ", "!!map ", "010", "1e9")
MARKS = ("'", '"', "|\n", "? ", "%YAML 1.2\n", "---\n")
TOKENS = st.sampled_from(WORDS + MARKS)


@settings(max_examples=300, deadline=None)
@given(st.lists(TOKENS, max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        load_yaml(text, "x")
    except UserError as error:
        assert "\n" not in str(error)
