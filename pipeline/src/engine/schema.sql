-- What the engine must not forget besides the events themselves (records::create_tables). Times are milliseconds since 1970.
CREATE TABLE IF NOT EXISTS engine (name TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event INTEGER NOT NULL REFERENCES event(seq),
    trigger TEXT NOT NULL,
    -- 'event', or 'dead' for what tells the dead letter sink of delivery `origin`.
    kind TEXT NOT NULL,
    revision TEXT NOT NULL,
    -- How often a delivery that was done was asked for again.
    again INTEGER NOT NULL DEFAULT 0,
    -- The attribute batonrevision of a delivery that is a repetition.
    mark TEXT,
    -- What a dead letter sink is told beside the event: attributes, a JSON object.
    reasons TEXT,
    lane TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    -- Failed attempts so far.
    attempt INTEGER NOT NULL DEFAULT 0,
    -- Functions that an event has gone through before.
    hops INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    last_error TEXT,
    last_status INTEGER,
    reply INTEGER REFERENCES event(seq),
    UNIQUE (event, trigger, kind, revision, again)
);
CREATE INDEX IF NOT EXISTS delivery_pending ON delivery (lane, next_at, id) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS delivery_dead ON delivery (id) WHERE state = 'dead';
CREATE INDEX IF NOT EXISTS delivery_trigger ON delivery (trigger, state);
CREATE INDEX IF NOT EXISTS delivery_reply ON delivery (reply) WHERE reply IS NOT NULL;

CREATE TABLE IF NOT EXISTS job (
    name TEXT PRIMARY KEY,
    sink TEXT NOT NULL,
    event INTEGER NOT NULL REFERENCES event(seq),
    -- Its attributes, as it was delivered.
    delivery INTEGER NOT NULL REFERENCES delivery(id),
    state TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    -- The newest event when it was first started: its answers come later.
    since INTEGER,
    started INTEGER,
    ended INTEGER,
    -- 'done', or why it failed: exit, deadline, memory.
    result TEXT,
    error TEXT,
    cpu_s REAL,
    wall_s REAL,
    max_rss_mb REAL,
    -- Whether its folder is there.
    folder INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS job_open ON job (created) WHERE state <> 'ended';
CREATE INDEX IF NOT EXISTS job_folder ON job (ended) WHERE folder = 1;
CREATE INDEX IF NOT EXISTS job_sink ON job (sink, event);
