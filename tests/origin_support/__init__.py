"""A small made-up Internet for the origin tests: tables, RIBs good and broken, a server."""
