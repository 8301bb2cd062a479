"""Image files without their metadata, by format."""
