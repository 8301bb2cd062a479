"""The service as replicas on Ray Serve."""
