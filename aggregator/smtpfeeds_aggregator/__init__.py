"""The centre: takes batches in, folds them into PostgreSQL, publishes feeds, answers questions.

Packages, each above those that it imports; a lint contract checks the order:

    cli              the commands, one module for each group
    start, service   the program: waits for the database, starts its threads, watches them
    query, fleet     analysts' queries; sensors' accounts and certificates
    publish          reads a window into columns, writes formats and the page, one generation a time
    ingest           checks, folds and writes batches, each exactly once
    meaning          classes and reasons; lists of scanners and mailers
    origin           which AS announces an address: fetches, compiles and uses the tables
    datasets         data that is replaced as a whole: fetch, check, generations, roll back
    sources          where batches come from: the broker (pika) or a spool on this host
    store            the database: the only package with SQL (psycopg)
    metrics, health, settings, clock, names

A batch goes through sources, ingest and store; an edition through store and publish.
"""
