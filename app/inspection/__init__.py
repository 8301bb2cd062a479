"""The inspection of images, from the request's parameters to the answer."""
