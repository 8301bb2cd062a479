"""The trainings of the flow library itself: two-dimensional densities, digits, folders of images."""
