-- The log in front of this file (see `log.rs`): which of its generations counts, and up to which record this file has it.
CREATE TABLE log (
    generation INTEGER NOT NULL,
    filed      INTEGER NOT NULL
);
INSERT INTO log (generation, filed) VALUES (0, 0);
-- A row of `event` may hold several events of a saga, as a JSON array: k then has the first one's number.
DROP VIEW history;
CREATE VIEW history (id, name, number, event) AS
    SELECT saga.id, saga.name, (event.k & 16777215) + each.key, each.value
    FROM saga
    JOIN event ON event.k BETWEEN saga.n << 24 AND saga.n << 24 | 16777215
    JOIN json_each(CASE substr(event.event, 1, 1) WHEN '[' THEN event.event ELSE '[' || event.event || ']' END) AS each;
