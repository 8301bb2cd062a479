"""The routes of the REST service, one file per resource."""
