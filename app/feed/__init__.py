"""What happens, in the order in which it happened: kept for a while, and told live."""
