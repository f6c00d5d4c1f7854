-- Of a saga that has ended: the step of another one that it was begun for, and whether that one has undone it.
ALTER TABLE saga ADD COLUMN parent TEXT;      -- saga.id, here or on another node
ALTER TABLE saga ADD COLUMN parent_step TEXT;
ALTER TABLE saga ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0;
CREATE INDEX saga_parent ON saga (parent, n) WHERE parent IS NOT NULL;
