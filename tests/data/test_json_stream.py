"""JSON element by element gives what json.loads gives, wherever the file is cut into chunks."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tips_dist.data import json_stream
from tips_dist.files import UserError

CONTENT: dict[str, Any] = {
    "info": {"year": 2017, "text": 'a "quoted" [bracket] é ☃'},
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": -2.5e3}],
    "empty": [],
    "none": None,
    "number": 12345,
    "annotations": [{"keypoints": [1.5, 2, 0.25]}, [], "x", 17, 1234567, True],
}


def expected(content: Any) -> list[tuple[str, Any]]:
    if isinstance(content, list):
        return [("", element) for element in content]
    result: list[tuple[str, Any]] = []
    for key, value in content.items():
        result += [(key, element) for element in value] if isinstance(value, list) else [(key, value)]
    return result


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("content", [CONTENT, CONTENT["annotations"], [], {}])
@pytest.mark.parametrize("indent", [None, 2])
def test_same_as_json_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, content: Any, indent: int | None
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert list(json_stream.items(path)) == expected(content)


@pytest.mark.parametrize("seed", range(40))
def test_what_json_loads_refuses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 5)
    generator = random.Random(seed)
    text = list(json.dumps(CONTENT))
    for _ in range(generator.randint(1, 3)):
        text[generator.randrange(len(text))] = generator.choice('{}[]",:0 x')
    text = text[: generator.choice([len(text), len(text), generator.randrange(len(text))])]
    path = tmp_path / "x.json"
    path.write_text("".join(text))
    try:
        content = json.loads("".join(text))
    except json.JSONDecodeError:
        with pytest.raises(UserError, match=r"x\.json: not valid JSON \(.* at character \d+\)"):
            list(json_stream.items(path))
    else:
        assert {key for key, _ in json_stream.items(path)} == {key for key, _ in expected(content)}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "expected '\\['"),
        ("3", "expected '\\['"),
        ("[1, 2", "expected ','"),
        ("[1] [2]", "something after the end"),
        ("{1: 2}", "not a text"),
        ("[" * 100_000, "nested too deeply|at character"),
        ("[" + "9" * 10_000 + "]", "digits"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=match) as caught:
        list(json_stream.items(tmp_path / "x.json"))
    assert "\n" not in str(caught.value)
