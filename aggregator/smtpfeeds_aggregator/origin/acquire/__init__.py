"""Get a new origin table: find, fetch, convert, check."""
