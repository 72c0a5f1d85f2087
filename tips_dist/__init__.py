"""tips-dist: stability studies of adversarial 2D-to-3D pose lifters (TIPS-GAN), judged without ground truth.

The Python door: everything that others build on is reachable from here, is documented and stays; what is not, is
private. Names are imported when they are first used, so that ``import tips_dist`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tips_dist.config import Study
    from tips_dist.files import UserError
    from tips_dist.history_import import import_history
    from tips_dist.lifting import lift_file as lift
    from tips_dist.models.base import BaseLifter, per_seed
    from tips_dist.models.student import Student
    from tips_dist.notebook import run_study
    from tips_dist.plugins import load_file as load_plugin
    from tips_dist.registry import register
    from tips_dist.runfolder.folder import RunFolder
    from tips_dist.study_file import load_study
    from tips_dist.watch import Watch

__version__ = "0.1.0"

__all__ = [
    "BaseLifter",
    "RunFolder",
    "Student",
    "Study",
    "UserError",
    "Watch",
    "import_history",
    "lift",
    "load_plugin",
    "load_study",
    "per_seed",
    "register",
    "run_study",
]

_HOMES = {
    "BaseLifter": "tips_dist.models.base",
    "RunFolder": "tips_dist.runfolder.folder",
    "Student": "tips_dist.models.student",
    "Study": "tips_dist.config",
    "UserError": "tips_dist.files",
    "Watch": "tips_dist.watch",
    "import_history": "tips_dist.history_import",
    "lift": "tips_dist.lifting:lift_file",
    "load_plugin": "tips_dist.plugins:load_file",
    "load_study": "tips_dist.study_file",
    "per_seed": "tips_dist.models.base",
    "register": "tips_dist.registry",
    "run_study": "tips_dist.notebook",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tips_dist' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    found = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
