"""From deliveries to rows, each batch exactly once.

    source → collect (check, fold) → handover → write → store

``collect`` and ``write`` are the two threads of ``worker``. What is no batch goes to
``refusals``; while the database accepts nothing, ``hold`` has every batch wait; and
``known_good`` is the batch by which the two are told apart.
"""
