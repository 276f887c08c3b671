"""Answer the queries of the command line, from the database or from published files."""
