"""The trained head: normaliser, flows and Gaussians, for training and for inference."""
