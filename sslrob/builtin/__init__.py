"""First-party components."""
