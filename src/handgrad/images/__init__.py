"""Image processing: reading image files, deskewing, data augmentation."""

from typing import TYPE_CHECKING, Any

from ..errors import submodule
from .augmentation import Augmentation
from .deskew import Deskew

__all__ = ["Augmentation", "Deskew"]

if not TYPE_CHECKING:  # modules that few programs need

    def __getattr__(name: str) -> Any:
        return submodule(__name__, name)
