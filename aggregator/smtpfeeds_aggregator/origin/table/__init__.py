"""The origin table: pyasn's text, the compiled index, the table in memory."""
