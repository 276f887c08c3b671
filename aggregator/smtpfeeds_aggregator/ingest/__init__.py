"""Turns deliveries into rows, each batch exactly once.

    source → collect (check, fold) → handover → write → store

``collect`` and ``write`` are the two threads of ``worker``. ``refusals`` refuses bad
messages; ``hold`` makes all batches wait while the database accepts nothing. To tell a bad
batch from a database in trouble, ingest tries the batch of ``probe_batch``.
"""
