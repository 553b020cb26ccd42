"""Diagnostics: plots, profiler, comparison with PyTorch, file inspection."""

from typing import TYPE_CHECKING, Any

from ..errors import submodule

if not TYPE_CHECKING:  # modules that few programs need

    def __getattr__(name: str) -> Any:
        return submodule(__name__, name)
