"""Images that a camera writes into a folder: each of them inspected once, whatever is killed meanwhile."""
