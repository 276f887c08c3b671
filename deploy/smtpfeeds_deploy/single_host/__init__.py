"""The single host: a private PostgreSQL and the programs as child processes, in one folder.

up                              starts, supervises and stops everything
status_line                     the line about events, publication and problems
programs, child                 the sensor and the aggregator as child processes
readiness, listening            what they report; the addresses that the sensor listens on
home, bounded_log               the folder, its settings files, its logs
postgres                        the private PostgreSQL
    postgres_binaries, postgres_cluster, postgres_sockets   its programs, data and socket
    unprivileged, orphans       the user that it runs as; servers of an earlier run
"""
