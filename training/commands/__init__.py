"""The commands that make a model, one file each."""
