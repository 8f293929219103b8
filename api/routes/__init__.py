"""One file per resource: its schemas, then its endpoints."""
