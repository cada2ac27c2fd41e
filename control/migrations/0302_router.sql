ALTER TABLE routers ADD COLUMN enable_ndp_proxy BOOLEAN NOT NULL DEFAULT FALSE;

-- Protocols whose control connections announce others.
CREATE TABLE conntrack_helpers (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    router_id TEXT NOT NULL REFERENCES routers (id) ON DELETE CASCADE,
    protocol TEXT NOT NULL,
    port BIGINT NOT NULL,
    helper TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE UNIQUE INDEX conntrack_helpers_router ON conntrack_helpers (router_id, protocol, port, helper);
