"""The commands that need the centre, one module for each group."""
