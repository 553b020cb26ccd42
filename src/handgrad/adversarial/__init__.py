"""Adversarial training (fast gradient, virtual adversarial training) and adversarial examples (DeepFool)."""

from .deepfool import AdversarialExample, deepfool
from .perturb import Adversarial, VirtualAdversarial

__all__ = ["Adversarial", "AdversarialExample", "VirtualAdversarial", "deepfool"]
