"""One training loop, and what each trained thing adds to it."""
