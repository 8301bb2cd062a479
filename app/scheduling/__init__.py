"""Admission, fair queues, the model thread and worker threads."""
