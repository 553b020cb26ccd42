"""handgrad and its peers side by side: `make bench`, or one of

    python -m benchmarks.steps        every peer on the same batches: time of a step, time of an epoch
    python -m benchmarks.resources    time to import and to predict, memory, size installed
    python -m benchmarks.growth       time against width, depth, batch size, threads, number of examples
    python -m benchmarks.ladder       handgrad's own way from the post's loops to here, rung by rung
    python -m benchmarks.roads        what it does, and what was tried instead
    python -m benchmarks.pictures     new pictures and upright ones: how many a second, what they cost an epoch
    python -m benchmarks.estimators   handgrad.sklearn beside scikit-learn, by `fit`

from the repository's root. Each writes what it measured into benchmarks/results. They need the extra `peers`.
"""
