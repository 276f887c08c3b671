"""From the database to files: snapshot, origins, formats, check, one switch.

``service.PublishLoop`` runs it on a common time grid, ``once.publish_once`` once.
"""
