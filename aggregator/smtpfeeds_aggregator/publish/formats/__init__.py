"""The formats of a feed, one module each."""
