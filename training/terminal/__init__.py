"""What a run tells a person on the terminal."""
