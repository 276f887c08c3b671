"""What an entry means: the class of an address, and the reasons for it.

classes    behaviours, counts, breadth and list entries in; class and reasons out. Pure.
"""
