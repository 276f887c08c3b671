"""One host: a private PostgreSQL and the programs as child processes, in one folder.

up                              starts all of it in order, looks after it, stops it
life                            the line that shows that it is alive
programs, child                 the sensor and the aggregator: logs, sessions, death with us
readiness, listening            what they report; where the sensor listens
home, bounded_log               the folder, its settings files, its logs
postgres                        the private server; of it:
    postgres_binaries, postgres_cluster, postgres_sockets   its programs, data and socket
    unprivileged, orphans       as whom root runs it; servers that outlived their owner
"""
