"""Who may do what: keys, roles, sessions of browsers, and the audit log."""
