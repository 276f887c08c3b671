"""Lists of known scanners and large mailers: to whom an address probably belongs.

    in_use      loads, watches, refreshes and swaps the current lists of a running program
    refresh     reads and checks every source, and puts a new generation in use
    child       the program of the child process that fetches and reads lists
    sources     where lists come from: the package, archives, an operator's files and URLs
    check       bounds that a list must keep to
    content     parses text and JSON; finds the date of a list
    table       turns lists into ranges; looks up a million addresses at once
    catalogue   to which actor a list belongs; actors' names and home pages
    model       a list and its prefixes

A list is a hint with a date, not a verdict: each answer shows its age.
"""
