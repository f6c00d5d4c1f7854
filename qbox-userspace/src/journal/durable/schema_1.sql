CREATE TABLE saga (
    n     INTEGER PRIMARY KEY,
    id    TEXT    NOT NULL UNIQUE,
    name  TEXT    NOT NULL,
    plan  TEXT    NOT NULL, -- plan.hash
    began INTEGER NOT NULL, -- microseconds since 1970, as all times here
    ended INTEGER           -- NULL: open
);
CREATE INDEX saga_open ON saga (n) WHERE ended IS NULL;
CREATE INDEX saga_ended ON saga (ended, n) WHERE ended IS NOT NULL;
CREATE TABLE event (
    k     INTEGER PRIMARY KEY, -- saga.n << 24 | number, numbers from 0
    sum   INTEGER NOT NULL,    -- the first 8 bytes of SHA-256 of id, number and event
    event TEXT    NOT NULL
);
CREATE TABLE plan (
    hash TEXT NOT NULL PRIMARY KEY, -- SHA-256 of the text beside it
    plan TEXT NOT NULL
);
CREATE VIEW history (id, name, number, event) AS
    SELECT saga.id, saga.name, event.k & 16777215, event.event
    FROM saga JOIN event ON event.k BETWEEN saga.n << 24 AND saga.n << 24 | 16777215;
