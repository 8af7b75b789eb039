"""One verb per file: read params, call pipeline, write outputs."""
