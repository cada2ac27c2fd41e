CREATE TABLE routers (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    admin_state_up BOOLEAN NOT NULL,
    distributed BOOLEAN NOT NULL,
    ha BOOLEAN NOT NULL,
    enable_snat BOOLEAN NOT NULL,
    gateway_port_id TEXT REFERENCES ports (id),
    routes TEXT NOT NULL,
    availability_zone_hints TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX routers_project ON routers (project_id, id);
CREATE UNIQUE INDEX routers_gateway ON routers (gateway_port_id);

-- The ports that are legs in project networks (device owner network:router_interface); the gateway is not here.
CREATE TABLE router_interfaces (
    port_id TEXT PRIMARY KEY NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
    router_id TEXT NOT NULL REFERENCES routers (id)
);
CREATE INDEX router_interfaces_router ON router_interfaces (router_id);
