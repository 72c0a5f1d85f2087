"""Where networks run: a card if there is one, or what was asked for, as torch names it."""

from __future__ import annotations

import re

from tips_dist.files import UserError

AUTO = "auto"


def device_for(asked: str | None) -> str:
    """The device that ``--device`` means: ``auto`` (or nothing) takes a card where torch sees one.

    Raises:
        UserError: there is no such device; the message says which there are.
    """
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked in (None, AUTO):
        return "cuda" if cards else "cpu"
    found = re.fullmatch(r"(cpu)|cuda(?::(\d{1,4}))?", asked)
    if found is None:
        raise UserError(f"--device {asked[:40]}: expected auto, cpu, cuda, or cuda:N for card number N")
    if found[1] or int(found[2] or 0) < cards:
        return asked
    there = f"it sees {cards}, from cuda:0" if cards else "it sees none; `tips-dist doctor` says why"
    raise UserError(f"--device {asked}: torch sees no such card: {there}")
