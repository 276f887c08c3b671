"""The SMTP sensor: records greets and data events in a spool, and delivers them.

Packages; lint contracts enforce their order:

    cli, check, run   the commands; sockets, privileges, reactor or workers
    service           joins the parts of one process
    process           workers and privileges
    edge              between the network and the dialogue; Twisted lives here
    delivery          recorder, the thread that delivers, the publisher (pika)
    smtp              the dialogue: octets in, replies and events out; pure

Path of an event: edge > smtp > edge > delivery.recorder > spool (common) > reply to the client.
Path of a batch: spool > delivery > broker.
"""
