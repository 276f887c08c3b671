"""The faults: each a function that breaks one thing of a running site.

Those that kill return at once, and the site mends itself; those that last return when the fault is
over. Nothing here waits for the site to be well again: that is what is measured.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from servers.rabbitmq_admin import AdminError
from smtpfeeds_common.topology import QUEUE

from .brokers import VHOST, Brokers
from .run import Run


def kill_sensor(run: Run) -> None:
    run.pipeline.kill(run.chance.choice(run.pipeline.sensors))


def kill_worker(run: Run) -> None:
    """One of the aggregators, all ingesting."""
    run.pipeline.kill(run.chance.choice(run.pipeline.aggregators))


def kill_broker(run: Run) -> None:
    """The single node; started again at once, which takes RabbitMQ its time."""
    (node,) = run.pipeline.brokers.nodes
    node.kill()
    node.launch()
    run.pipeline.wait(node.admin.answers, "the broker is up", 120)


def kill_leader(run: Run) -> None:
    """The one of three nodes that leads the queue."""
    brokers = run.pipeline.brokers
    assert isinstance(brokers, Brokers), "a single host has no queue"
    node = brokers.leader()
    node.kill()
    node.launch()


def kill_database(run: Run) -> None:
    """The postmaster, started again at once."""
    run.pipeline.primary.kill()
    run.pipeline.primary.start()


def promote_standby(run: Run) -> None:
    """kill -9 of the primary; its synchronous standby takes over."""
    pipeline = run.pipeline
    (standby,) = [each for each in pipeline.databases if each is not pipeline.primary]
    pipeline.primary.kill()
    standby.promote()
    pipeline.primary = standby


def cut(wire: str) -> Callable[[Run], None]:
    """A wire that is cut in one of four ways, for up to two seconds."""

    def cut_wire(run: Run) -> None:
        proxy = run.pipeline.wires[wire]
        way = run.chance.choice(("reset", "refused", "paused", "swallowed"))
        if way == "reset":
            proxy.cut()
            return
        {"refused": proxy.refuse, "paused": proxy.pause, "swallowed": proxy.blackhole}[way]()
        run.pipeline.sleep(run.chance.uniform(0.2, 2.0))
        if way == "swallowed":
            proxy.cut()  # what was swallowed is gone: such a connection never works again
        proxy.forward()

    cut_wire.__name__ = f"cut {wire}"
    return cut_wire


def delete_queue(run: Run) -> None:
    """Deleted under its consumers, with what is in it; then the sensors send again."""
    admin = run.pipeline.brokers.nodes[0].admin
    try:
        admin.delete_queue(VHOST, QUEUE)
    except AdminError as exc:
        if " 404 " not in str(exc):
            raise
    run.pipeline.sleep(run.chance.uniform(0.5, 2.0))
    replay(run)


def replay(run: Run) -> None:
    """`smtpfeeds sensor replay` of all that was confirmed."""
    for sensor in run.pipeline.sensors:
        config = str(run.pipeline.folder / f"{sensor}.toml")
        run.pipeline.run("replay", "sensor", "replay", "--config", config, "--since", "2h")


def fill_queue(run: Run) -> None:
    """The queue at its limit, as nobody takes from it: it refuses what is published."""
    admin = run.pipeline.brokers.nodes[0].admin
    admin.set_policy(VHOST, "small", QUEUE.replace(".", r"\."), {"max-length": 2})
    run.pipeline.down(*run.pipeline.aggregators)
    run.pipeline.sleep(run.chance.uniform(6, 10))
    admin.call("DELETE", "policies", VHOST, "small")
    run.pipeline.up(*run.pipeline.aggregators)


def read_only_database(run: Run) -> None:
    """Every new transaction may only read."""
    run.pipeline.primary.set_up(default_transaction_read_only="on")
    run.pipeline.sleep(run.chance.uniform(1, 5))
    # The superuser's own session is read-only too, and ALTER SYSTEM is not a write.
    run.pipeline.primary.set_up(default_transaction_read_only="off")


def refuse_connections(run: Run) -> None:
    """No connection is left for the aggregators, and those that they have are gone."""
    database = run.pipeline.primary
    database.execute("ALTER ROLE smtpfeeds CONNECTION LIMIT 0")
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'smtpfeeds'"
    )
    run.pipeline.sleep(run.chance.uniform(1, 5))
    database.execute("ALTER ROLE smtpfeeds CONNECTION LIMIT -1")


def freeze_worker(run: Run) -> None:
    """SIGSTOP in the middle of whatever it does: it holds locks and batches, and says nothing."""
    name = run.chance.choice(run.pipeline.aggregators)
    if run.pipeline.programs[name].pid is None:
        return
    run.pipeline.signal(name, signal.SIGSTOP)
    run.pipeline.sleep(run.chance.uniform(1, 4))
    run.pipeline.signal(name, signal.SIGCONT)
