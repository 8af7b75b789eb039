"""A study's folder and its stages: which rows, from where, to where. A file a stage, with the stage's name."""
