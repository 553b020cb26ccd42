"""A sweep on Slurm with dask-jobqueue: four jobs with 16 workers each.

Run this program on the login node or in a job of its own: python slurm_dask.py --recipe quick --lr 0.003,0.01 --seeds 5
Its arguments are those of handgrad sweep. The data and handgrad are on a file system that all nodes see.
Install: pip install "handgrad[dask]" dask-jobqueue
"""

import os
import subprocess
import sys

from dask_jobqueue import SLURMCluster


def main() -> int:
    """Start the workers, run the sweep, and end the workers. Returns the exit code of the sweep."""
    data = os.environ.get("HANDGRAD_DATA", os.path.join(os.getcwd(), "mnist"))
    with SLURMCluster(
        cores=16,  # of a job
        processes=16,  # workers of a job, each with one thread
        memory="32GB",
        walltime="02:00:00",
        job_script_prologue=[f"export HANDGRAD_DATA={data}"],
        # queue="normal", account="project", interface="ib0": depend on the cluster
    ) as cluster:
        cluster.scale(jobs=4)
        return subprocess.call(["handgrad", "sweep", "--scheduler", cluster.scheduler_address, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
