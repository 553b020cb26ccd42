#!/bin/bash
# Four nodes with 16 processes each: sbatch slurm.sh
#SBATCH --job-name=handgrad
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=16
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
RUN="$SLURM_SUBMIT_DIR/runs/minute"  # a directory that all nodes see

# The MPI of the cluster, with which mpi4py works without a new build: module load openmpi
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export HANDGRAD_DATA="$SLURM_SUBMIT_DIR/mnist"

# After a failure of a node, Slurm starts the job again, and the run continues from its last checkpoint.
if [ -e "$RUN/config.json" ]; then
    srun --mpi=pmix handgrad train --resume "$RUN"
else
    srun --mpi=pmix handgrad train --recipe minute --batch-size 1024 --lr 0.02 --warm-up 1 --out "$RUN"
fi
