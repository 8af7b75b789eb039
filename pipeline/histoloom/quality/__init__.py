"""Features, filters and metrics; they share the extractors."""
