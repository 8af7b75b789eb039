"""The stages of this repository's demo, a script each; what they do is in pipeline/histoloom/studies."""
