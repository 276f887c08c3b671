"""The origin table: its formats, and how one is compiled from the other.

in_memory   `OriginTable`: look-ups, names, where the table came from
index       the compiled file, which is mapped
compile     turns prefixes into the arrays of an index
prefixes    the prefixes of one family with their origins, in little memory
radix       pyasn's tree: reads a table, and checks the index
text        pyasn's text format, checked before pyasn reads it
"""
