"""Published files as a source of answers, in place of the database.

places      what `--from` names: a folder, a file, a URL; verified by its manifest
remote      what is fetched from a server, and kept
rows        entries from NDJSON and CSV
"""
