"""Networks and the one door through which they are made, loaded and saved."""
