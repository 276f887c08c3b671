"""Data that is replaced as a whole while it is in use: published feeds, origin tables, lists.

    fetch           fetches one file over HTTPS: bounded, conditional, resumable
    child_process   runs work in a child process, so that it cannot delay ingest
    schedule        when the next refresh is due
    directory       a data set's folder: lock, status, generations with a manifest, roll back
    in_use          a running program's data set: takes changes, refreshes on schedule
    generations     finished generations side by side, and the symlink to the current one

A refresh fetches into `directory`'s `incoming`, checks the data and adds a generation; a program
that uses the data notices that `current` names another one. The packages `publish`, `origin` and
`meaning` know what the data is.
"""
