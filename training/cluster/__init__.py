"""Training on a Ray cluster whose nodes share folders."""
