#!/bin/bash

# Parameters
#SBATCH --account=heart
#SBATCH --constraint='a100&ib'
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --job-name='heart maps'
#SBATCH --mem=245760MB
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/logs/%j/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=low
#SBATCH --requeue
#SBATCH --reservation=maintenance
#SBATCH --signal=USR2@300
#SBATCH --time=2880

# setup
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
module load cuda
source ~/env.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /scratch/logs/%j/%j_%t_log.out --kill-on-bad-exit=1 PYTHON -u -m submitit.core._submit /scratch/logs/%j

