"""Support of the origin tests: tables, valid and broken RIBs, and a server."""
