"""Makes a new origin table from an archive of RIBs or from local files.

refresh        runs the steps in order, and returns the result of a refresh
rib            fetches the newest RIB of an archive; route_views knows its place there
local          finds the newest RIB and AS names in a local folder
names_source   chooses the list of AS names; as_names parses and cleans it
convert        turns a RIB into a table; bogons filters its prefixes
validate       decides whether a new table may replace the one in use
steps          what the steps share: settings, folders, child processes
"""
