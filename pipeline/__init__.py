"""histoloom: whole-slide image synthesis and augmentation. See docs/architecture.md for the parts."""

__version__ = "0.1.0"
