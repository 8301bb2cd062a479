"""The history of inspections: recording, searching, reviews, statistics, retention."""
