"""SLURM: what is submitted, what a job does, how its state is asked for, and how it is followed."""
