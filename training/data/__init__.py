"""Data sets: one module per layout, and the images of a run."""
