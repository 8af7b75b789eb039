"""What the user states and what the stages write: manifests, splits, tile stores, atomic commits."""
