"""The database: the only package that executes SQL."""
