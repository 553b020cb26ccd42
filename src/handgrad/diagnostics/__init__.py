"""Diagnostics: plots, histograms, learning rate range test, model card, profiler, drawing pad, file inspection."""

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import submodule

if TYPE_CHECKING:
    from .histograms import Histogram, Histograms
    from .lr_finder import LRRangeTest, OverfitTest, find_lr, overfit_one_batch

__all__ = ["Histogram", "Histograms", "LRRangeTest", "OverfitTest", "find_lr", "overfit_one_batch"]

_MODULES = dict.fromkeys(("LRRangeTest", "OverfitTest", "find_lr", "overfit_one_batch"), "lr_finder")
_MODULES |= dict.fromkeys(("Histogram", "Histograms"), "histograms")

if not TYPE_CHECKING:  # modules that few programs need

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        return submodule(__name__, name)
