"""How images are found: one module per layout, one Sample type."""
