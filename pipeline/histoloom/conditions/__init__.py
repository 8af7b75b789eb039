"""The condition bus (sequence, vector, map) and its encoders."""
