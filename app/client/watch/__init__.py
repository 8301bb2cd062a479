"""Watcher of a camera's folder: each image is inspected once, whatever is killed."""
