"""The operator's page: templates, static files, and the words of each language."""
