"""What was inspected: every answer with its picture, found again, reviewed, counted, kept and let go."""
