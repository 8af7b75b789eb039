"""What is fitted to tiles and predicts on tiles: classifiers, a U-Net, a command of the user, and linear ones on features."""
