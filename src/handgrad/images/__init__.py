"""Image processing: reading image files, deskewing, data augmentation."""

from .augmentation import Augmentation
from .deskew import Deskew

__all__ = ["Augmentation", "Deskew"]
