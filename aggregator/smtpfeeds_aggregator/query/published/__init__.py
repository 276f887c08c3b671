"""Answer queries from published files instead of the database.

places      what `--from` names: a folder, a file, a URL; verified by its manifest
remote      fetches files from a server, with a cache
rows        entries from NDJSON and CSV
"""
