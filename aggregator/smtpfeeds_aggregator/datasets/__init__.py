"""Data that is replaced as a whole while it is in use: published feeds, origin tables, lists.

    fetch           one file over HTTPS: bounded, conditional, resumable
    child_process   work that must not hold up ingest: started, followed, ended in time
    schedule        when the next refresh is due
    directory       a data set's folder: lock, status, generations with a manifest, roll back
    generations     finished generations side by side, and the symlink that says which is current

A refresh fetches into `directory`'s `incoming`, checks, and adds a generation; a program that uses
the data notices that `current` names another one. What the data is, its own room knows.
"""
