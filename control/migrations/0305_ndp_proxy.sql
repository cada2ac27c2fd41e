-- Addresses inside that a router's gateway answers for outside.
CREATE TABLE ndp_proxies (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    router_id TEXT NOT NULL REFERENCES routers (id),
    port_id TEXT NOT NULL REFERENCES ports (id),
    ip_address TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX ndp_proxies_project ON ndp_proxies (project_id, id);
CREATE INDEX ndp_proxies_router ON ndp_proxies (router_id);
CREATE INDEX ndp_proxies_port ON ndp_proxies (port_id);
