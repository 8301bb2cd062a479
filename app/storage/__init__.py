"""Stores of files that servers share: a folder, or an object store by an fsspec URL."""
