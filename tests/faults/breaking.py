"""The faults: each function breaks one thing of a running site.

A function that kills returns at once, and the site recovers by itself; a function for a longer
fault returns at its end. None waits for the recovery, because that is measured.
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
    """Kill one of the aggregators; all of them ingest."""
    run.pipeline.kill(run.chance.choice(run.pipeline.aggregators))


def kill_broker(run: Run) -> None:
    """Kill the single node and start it again at once."""
    (node,) = run.pipeline.brokers.nodes
    node.kill()
    node.launch()
    run.pipeline.wait(node.admin.answers, "the broker is up", 120)


def kill_leader(run: Run) -> None:
    """Kill the node of three that leads the queue."""
    brokers = run.pipeline.brokers
    assert isinstance(brokers, Brokers), "a single host has no queue"
    node = brokers.leader()
    node.kill()
    node.launch()


def kill_database(run: Run) -> None:
    """Kill the postmaster and start it again at once."""
    run.pipeline.primary.kill()
    run.pipeline.primary.start()


def promote_standby(run: Run) -> None:
    """Kill the primary with SIGKILL; its synchronous standby takes over."""
    pipeline = run.pipeline
    (standby,) = [each for each in pipeline.databases if each is not pipeline.primary]
    pipeline.primary.kill()
    standby.promote()
    pipeline.primary = standby


def cut(wire: str) -> Callable[[Run], None]:
    """Interrupt a connection in one of four ways, for up to two seconds."""

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
    """Delete the queue with its messages; then the sensors send them again."""
    admin = run.pipeline.brokers.nodes[0].admin
    try:
        admin.delete_queue(VHOST, QUEUE)
    except AdminError as exc:
        if " 404 " not in str(exc):
            raise
    run.pipeline.sleep(run.chance.uniform(0.5, 2.0))
    replay(run)


def replay(run: Run) -> None:
    """Run `smtpfeeds sensor replay` for all confirmed batches."""
    for sensor in run.pipeline.sensors:
        config = str(run.pipeline.folder / f"{sensor}.toml")
        run.pipeline.run("replay", "sensor", "replay", "--config", config, "--since", "2h")


def fill_queue(run: Run) -> None:
    """Fill the queue to its limit, so that it refuses messages."""
    admin = run.pipeline.brokers.nodes[0].admin
    admin.set_policy(VHOST, "small", QUEUE.replace(".", r"\."), {"max-length": 2})
    run.pipeline.down(*run.pipeline.aggregators)
    run.pipeline.sleep(run.chance.uniform(6, 10))
    admin.call("DELETE", "policies", VHOST, "small")
    run.pipeline.up(*run.pipeline.aggregators)


def read_only_database(run: Run) -> None:
    """Make every new transaction read-only."""
    run.pipeline.primary.set_up(default_transaction_read_only="on")
    run.pipeline.sleep(run.chance.uniform(1, 5))
    # The superuser's own session is read-only too, and ALTER SYSTEM is not a write.
    run.pipeline.primary.set_up(default_transaction_read_only="off")


def refuse_connections(run: Run) -> None:
    """End the aggregators' connections, and leave no free one."""
    database = run.pipeline.primary
    database.execute("ALTER ROLE smtpfeeds CONNECTION LIMIT 0")
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'smtpfeeds'"
    )
    run.pipeline.sleep(run.chance.uniform(1, 5))
    database.execute("ALTER ROLE smtpfeeds CONNECTION LIMIT -1")


def freeze_worker(run: Run) -> None:
    """Stop a worker with SIGSTOP at any point: it keeps its locks and batches."""
    name = run.chance.choice(run.pipeline.aggregators)
    if run.pipeline.programs[name].pid is None:
        return
    run.pipeline.signal(name, signal.SIGSTOP)
    run.pipeline.sleep(run.chance.uniform(1, 4))
    run.pipeline.signal(name, signal.SIGCONT)
