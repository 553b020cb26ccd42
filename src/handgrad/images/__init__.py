"""Image processing: reading images, deskewing, data augmentation."""

import importlib
from typing import TYPE_CHECKING, Any

from .augmentation import Augmentation
from .deskew import Deskew

if TYPE_CHECKING:
    from .reading import Reading, as_digit, predict_image, read_image

__all__ = ["Augmentation", "Deskew", "Reading", "as_digit", "predict_image", "read_image"]


def __getattr__(name: str) -> Any:
    """Import what reads images when it is first used: it would take a third of the time of `import handgrad`."""
    if name in ("Reading", "as_digit", "predict_image", "read_image"):
        return getattr(importlib.import_module(".reading", __name__), name)
    if name in ("decoding", "detector", "reading", "segmentation"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
