"""The forward process and its reverse: schedules, loss weights, noise, guidance, solvers."""
