"""Jobs: commands that the server runs beside serving, such as a training."""
