"""A large picture as one latent canvas: window layouts, blocks, what is stated about it, steps, decoding."""
