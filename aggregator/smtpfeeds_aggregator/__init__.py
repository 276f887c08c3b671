"""The centre: takes batches in, folds them into PostgreSQL, publishes feeds, answers questions.

Rooms, each above those that it uses; a lint contract holds the order:

    cli              the commands, one module for each group
    start, service   the program: waits for the database, starts its threads, watches them
    query, fleet     questions of analysts; sensors' accounts and certificates
    publish          a window in columns, formats, the page, one generation at a time
    ingest           checks, folds and writes batches, each exactly once
    meaning          classes and reasons; lists of scanners and mailers
    origin           which AS announces an address: tables got, compiled, in use
    datasets         what is replaced as a whole: fetch, check, generations, roll back
    sources          where batches come from: the broker (pika) or a spool on this host
    store            the database: the only room with SQL (psycopg)
    metrics, health, settings, clock, names

The way of a batch: sources > ingest > store. The way of an edition: store > publish.
"""
