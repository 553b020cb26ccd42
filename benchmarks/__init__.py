"""Benchmarks of handgrad and other libraries, measured side by side.

    python -m benchmarks.steps          time of a training step and of an epoch, all libraries on the same batches
    python -m benchmarks.resources      time to import and to predict, memory, installed size
    python -m benchmarks.scaling        time against width, depth, batch size, threads, number of examples
    python -m benchmarks.scaling_model  the time on 1 to 1,024 nodes: a model, checked on several processes
    python -m benchmarks.large_batch    accuracy with large batches and with local SGD
    python -m benchmarks.speedups       from Python loops to handgrad, one optimization at a time
    python -m benchmarks.alternatives   implementation choices of handgrad compared with their alternatives
    python -m benchmarks.augmentation   data augmentation and deskewing: images per second, cost per epoch
    python -m benchmarks.estimators     handgrad.sklearn and scikit-learn, time of `fit`
    python -m benchmarks.time_to_accuracy  seconds of training until 98 % and 99 % of the test set of MNIST are correct

Run the commands from the root of the repository, or with `make bench` and `make bench-scale`. They need the extra
`peers`. Each command writes its results to benchmarks/results, except with --quick, a short form to try it.
"""
