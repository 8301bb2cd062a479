"""The operator's page: templates, static files, and texts in each language."""
