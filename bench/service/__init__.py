"""The service under load: a real server in a child process, and clients in this one."""
