"""One host: a private PostgreSQL and the programs as child processes."""
