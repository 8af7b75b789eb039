"""What `histoloom validate` looks for: faults of a whole study that a stage would refuse late, before any stage works."""
