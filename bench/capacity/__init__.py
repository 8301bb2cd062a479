"""How many servers a plant needs: a queueing model, fitted to a real server, and its predictions."""
