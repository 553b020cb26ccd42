"""Files: save and load models, safetensors, atomic writes."""

from .models import load, save

__all__ = ["load", "save"]
