"""Publish the feeds: from the database to the served files.

service      the loop on the time grid (``grid``), with retries, metrics and health
process, child, messages    a process for each run: its supervision, its program, their messages
scheduled    one run of the loop, in that process
once, generation_writer    one publication from window to switch, and its files
sanity, failures, status    whether its numbers are plausible; why it failed; the last runs
snapshot, columns, judgements, chunks, entries    the window, its classes, its rows
files, formats/, check, manifest                  what is written, and read back
generation, layout, unchanged                     the served folder; unchanged files
page/        a page for people
"""
