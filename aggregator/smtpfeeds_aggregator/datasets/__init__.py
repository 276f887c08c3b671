"""Data that is replaced as a whole while it is in use: the published feeds, the origin tables.

``generations`` keeps finished ones side by side on disk and switches between them.
"""
