"""What inference costs: FlowGauge, anomalib and the bare backbone, taking turns in one run.

`python -m bench.inference PART`; each part is a module of this package. What is timed is loaded in a process
of its own (`contestant`), so that memory and threads are its own and each may have an interpreter of its own.
"""
