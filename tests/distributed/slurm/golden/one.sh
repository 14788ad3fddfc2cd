#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=8
#SBATCH --job-name=artifactgen
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/logs/%j/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=240

# setup
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /scratch/logs/%j/%j_%t_log.out --kill-on-bad-exit=1 PYTHON -u -m submitit.core._submit /scratch/logs/%j

