"""A neural network for handwritten digits, written out by hand in NumPy alone."""

__version__ = "0.1.0"
