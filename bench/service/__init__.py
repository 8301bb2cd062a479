"""What the service does under load: the real one in a process of its own, and clients here.

`python -m bench.service SCENARIO`; each scenario is a module of this package.
"""
