-- The network and router that a project got by asking for one.
CREATE TABLE auto_allocated_topologies (
    project_id TEXT PRIMARY KEY NOT NULL,
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    router_id TEXT REFERENCES routers (id) ON DELETE SET NULL
);
CREATE INDEX auto_allocated_topologies_network ON auto_allocated_topologies (network_id);
CREATE INDEX auto_allocated_topologies_router ON auto_allocated_topologies (router_id);
