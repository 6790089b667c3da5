"""Running a program: the loop, run directories, checkpoints, evaluation, sweeps."""
