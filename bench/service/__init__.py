"""The service under load: a real server in a process of its own, and clients here."""
