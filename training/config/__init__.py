"""The settings of a run, from one YAML file."""
