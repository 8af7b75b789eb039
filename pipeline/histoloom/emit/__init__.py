"""Dataset formats, patient codes and the dataset card."""
