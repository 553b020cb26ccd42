"""Accuracy and training time of the recipes on the MNIST test set: python -m records.run --help."""
