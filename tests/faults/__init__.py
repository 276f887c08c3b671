"""The fault harness: what is broken under load, and what is then compared."""
