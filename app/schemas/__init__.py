"""What goes over the wire, field by field: one file per resource."""
