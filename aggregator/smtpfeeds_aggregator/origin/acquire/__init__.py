"""A new origin table, from an archive of RIBs or from local files.

refresh        the steps in their order, and what a refresh did
rib            the newest RIB of an archive; route_views: where it lies there
local          the newest RIB and names in a local folder
names_source   which list of AS names; as_names: its layouts, read and cleaned
convert        from a RIB to a table; bogons: what stays out of it
validate       whether a new table may replace the one in use
steps          what the steps share: settings, folders, child processes
"""
