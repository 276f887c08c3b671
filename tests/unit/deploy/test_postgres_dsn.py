"""A connection string works with any folder name."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from smtpfeeds_common.errors import SingleHostError
from smtpfeeds_deploy.single_host.postgres import PrivatePostgres, connection_string


@pytest.mark.parametrize(
    "folder",
    ["/srv/feeds", "/srv/my feeds", "/srv/it's", "/srv/back\\slash", "/srv/a=b", "/srv/ümlaut"],
)
def test_any_folder_name_is_quoted_as_libpq_reads_it(folder: str) -> None:
    read = conninfo_to_dict(connection_string(Path(folder), "smtpfeeds", "someone"))
    assert read == {"host": folder, "dbname": "smtpfeeds", "user": "someone"}


def test_server_that_was_not_started_has_no_connection_string(tmp_path: Path) -> None:
    with pytest.raises(SingleHostError, match="was not started yet"):
        _ = PrivatePostgres(tmp_path).dsn
