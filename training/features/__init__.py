"""Feature maps of the training images, cached on disk."""
