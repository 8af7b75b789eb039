"""What is fitted to tiles and predicts on tiles: linear and image classifiers, a segmenter, a command of the user."""
