"""Is the flow library as good as others? Same samples, same size, same training for all of them."""
