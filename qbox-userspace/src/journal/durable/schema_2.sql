-- What is known of a saga that has ended, beside when. NULL in all of them: open, or ended under version 1, and then a
-- start reads its history once more and fills them.
ALTER TABLE saga ADD COLUMN state TEXT;          -- committed or compensated
ALTER TABLE saga ADD COLUMN failed_step TEXT;
ALTER TABLE saga ADD COLUMN cause TEXT;
ALTER TABLE saga ADD COLUMN replied INTEGER;     -- when its callers were answered
ALTER TABLE saga ADD COLUMN status INTEGER;      -- and with which status
ALTER TABLE saga ADD COLUMN key BLOB;            -- SHA-256 of what makes two triggers one, if it has a key
ALTER TABLE saga ADD COLUMN payload BLOB;        -- SHA-256 of what they must have in common then
DROP INDEX saga_open;
CREATE INDEX saga_open ON saga (n) WHERE state IS NULL;
CREATE INDEX saga_key ON saga (key) WHERE key IS NOT NULL;
