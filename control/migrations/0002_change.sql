-- What was written at which revision, deletions too: a reconciler that saw revision R reads what is newer.
-- Old entries are pruned; who is older than the oldest entry reads everything.
CREATE TABLE changes (
    revision BIGINT NOT NULL,
    resource TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    PRIMARY KEY (revision, resource, resource_id)
);
