"""What an entry means: the class of an address, and the reasons for it.

classes     from behaviours, counts, breadth and list entries to a class and its reasons
listings    which list entries count, and for how long
recent      the days and behaviours of a stored row that are recent
words       what classes and reasons mean, in words for readers
lists       lists of known scanners and large mailers
"""
