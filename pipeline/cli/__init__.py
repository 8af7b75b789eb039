"""The `histoloom` command."""
