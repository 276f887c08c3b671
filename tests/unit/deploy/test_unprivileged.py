"""The user of a server follows from this process, the owner of the data, and the host."""

from __future__ import annotations

import pytest

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_deploy.single_host.unprivileged import Identity, choose_identity

NOBODY = 65534


@pytest.mark.parametrize("data_uid", [None, 1000], ids=["no data yet", "own data"])
def test_ordinary_user_runs_the_server(data_uid: int | None) -> None:
    chosen = choose_identity(euid=1000, data_uid=data_uid, namespaces=True, sudo_uid=None)
    assert chosen == Identity()


def test_data_of_another_user_are_refused_by_name() -> None:
    with pytest.raises(SingleHostError, match="belongs to user root: start it as that user"):
        choose_identity(euid=1000, data_uid=0, namespaces=True, sudo_uid=None)


@pytest.mark.parametrize("data_uid", [None, 0], ids=["no data yet", "root's data"])
def test_root_uses_a_user_namespace_and_owns_the_data(data_uid: int | None) -> None:
    chosen = choose_identity(euid=0, data_uid=data_uid, namespaces=True, sudo_uid=1000)
    assert chosen.prefix[:2] == ("unshare", "--user")
    assert chosen.uid is None


def test_root_without_user_namespaces_uses_an_unprivileged_user() -> None:
    chosen = choose_identity(euid=0, data_uid=None, namespaces=False, sudo_uid=None)
    assert chosen.uid not in (None, 0)
    assert f"--reuid={chosen.uid}" in chosen.prefix


def test_data_keep_their_user() -> None:
    """A namespace of root could not read the data, even if namespaces work now."""
    chosen = choose_identity(euid=0, data_uid=NOBODY, namespaces=True, sudo_uid=None)
    assert chosen.uid == NOBODY


def test_user_who_does_not_exist_is_refused() -> None:
    with pytest.raises(SingleHostError, match="there is no user 4000000000"):
        choose_identity(euid=0, data_uid=None, namespaces=False, sudo_uid=4_000_000_000)


def test_uid_without_a_user_uses_a_user_namespace_and_owns_the_data() -> None:
    """Containers may run with any uid, but initdb fails if its uid has no name."""
    chosen = choose_identity(
        euid=12345, data_uid=12345, namespaces=True, sudo_uid=None, has_name=False
    )
    assert chosen == Identity(prefix=("unshare", "--user", "--"))


def test_uid_without_a_user_or_namespaces_is_refused_with_the_remedy() -> None:
    with pytest.raises(SingleHostError, match="uid 12345, for which the system has no user"):
        choose_identity(euid=12345, data_uid=None, namespaces=False, sudo_uid=None, has_name=False)
