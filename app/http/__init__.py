"""Parts of HTTP that several routes need: bodies, conditions, media types, long answers."""
