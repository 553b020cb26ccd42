"""Image processing: reading images, deskewing, data augmentation."""

from .augmentation import Augmentation
from .deskew import Deskew
from .reading import Reading, as_digit, predict_image, read_image

__all__ = ["Augmentation", "Deskew", "Reading", "as_digit", "predict_image", "read_image"]
