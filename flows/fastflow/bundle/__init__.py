"""Read, verify, write, publish and activate bundles."""
