"""Who is served when: admission, fair queues, the model thread and pools of worker threads."""
