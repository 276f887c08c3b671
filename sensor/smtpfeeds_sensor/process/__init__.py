"""The sensor as a process: workers and privileges."""
