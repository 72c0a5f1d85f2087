import pytest
import torch

from tips_dist.devices import device_for, threads_for
from tips_dist.files import UserError


@pytest.mark.parametrize("cards", [0, 1, 2])
def test_auto_takes_a_card_where_there_is_one(cards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert device_for(None) == device_for("auto") == ("cuda" if cards else "cpu")
    assert device_for("cpu") == "cpu"
    for asked, needed in (("cuda", 1), ("cuda:0", 1), ("cuda:1", 2)):
        if cards >= needed:
            assert device_for(asked) == asked
        else:
            with pytest.raises(UserError, match=f"--device {asked}: torch sees no such card: it sees"):
                device_for(asked)


@pytest.mark.parametrize("asked", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "cuda:0\n", "mps", "meta"])
def test_another_word_is_one_line(asked: str) -> None:
    with pytest.raises(UserError, match="expected auto, cpu, cuda, or cuda:N"):
        device_for(asked)


@pytest.mark.parametrize(("rows", "width", "expected"), [(128, 64, 1), (4096, 128, 1), (4096, 256, 3), (128, 2048, 3)])
def test_small_work_takes_one_thread_and_gives_the_others_back(rows: int, width: int, expected: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_for(rows, width):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
