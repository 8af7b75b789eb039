"""From a slide file to tiles: open, tissue, grid, stain, annotations, tiler."""
