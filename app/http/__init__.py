"""HTTP features that several routes share: uploads, preconditions, media types, long responses."""
