"""Products and their datasets: the images that a category is taught with."""
