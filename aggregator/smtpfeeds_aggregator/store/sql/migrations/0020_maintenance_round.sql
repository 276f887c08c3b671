-- oldest reader: 0.1.0
-- oldest writer: 0.1.0

-- When a task of maintenance was last done to its end, by the database's clock.
CREATE TABLE maintenance_round (
    task text COLLATE "C" PRIMARY KEY,
    finished_at timestamptz NOT NULL
);
