"""The synthetic run folder of the report's tests; see :mod:`tips_dist.runfolder.example`."""

from tips_dist.runfolder.example import build

__all__ = ["build"]
