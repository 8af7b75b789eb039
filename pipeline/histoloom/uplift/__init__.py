"""Did it help: the same classifier trained with and without synthetic tiles, on the same number of steps."""
