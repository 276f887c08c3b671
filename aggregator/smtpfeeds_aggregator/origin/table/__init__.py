"""The origin table as a thing of its own.

in_memory   `OriginTable`: answers, names, where it came from
index       the compiled file that is mapped
compile     from prefixes to the arrays of an index
radix       pyasn's tree: reads a table, and referees the index
text        pyasn's text format, checked before pyasn sees it
"""
