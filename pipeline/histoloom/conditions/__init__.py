"""Conditions (sequence, vector, map), their encoders, and the networks that pictures are looked at through."""
