"""What becomes of the samples of a row, a file each: `reduction(drawn, config)` gives the arrays that are kept of each row."""
