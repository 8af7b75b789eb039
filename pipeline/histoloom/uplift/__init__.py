"""Did it help: the same model trained with and without synthetic tiles, for the same number of steps."""
