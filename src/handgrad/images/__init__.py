"""Image processing: reading images, deskewing, data augmentation, HOG."""

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import submodule
from .augmentation import Augmentation
from .deskew import Deskew
from .hog import HOG

if TYPE_CHECKING:
    from .reading import Reading, as_digit, predict_image, read_image

__all__ = ["HOG", "Augmentation", "Deskew", "Reading", "as_digit", "predict_image", "read_image"]


def __getattr__(name: str) -> Any:
    """Import what reads images when it is first used: it would take a third of the time of `import handgrad`."""
    if name in ("Reading", "as_digit", "predict_image", "read_image"):
        return getattr(importlib.import_module(".reading", __name__), name)
    return submodule(__name__, name)
