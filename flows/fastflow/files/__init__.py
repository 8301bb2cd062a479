"""Read and write files safely: atomic replacement, checked reads."""
