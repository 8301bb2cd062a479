"""Where files that all servers share are kept: a folder, or an object store by an fsspec URL."""
