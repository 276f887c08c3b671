"""Lists of known scanners and large mailers: who an address is said to belong to.

    in_use      the current lists of a running program: loaded, watched, refreshed, swapped
    refresh     a new generation: every source read, checked against its last state, put in use
    child       the program of the child process that fetches and reads
    sources     where lists come from: the package, archives, an operator's files and addresses
    check       bounds that a list must keep to
    content     text and JSON read; the date of a list
    table       from lists to ranges; a million addresses looked up at once
    catalogue   which list is whose: actors, their names and home pages
    model       what a list is

A list is a hint with a date, never a verdict: its age stands with each answer.
"""
