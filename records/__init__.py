"""What the recipes reach on MNIST's test set, over seeds, and how long they take: see `python -m records.run --help`."""
