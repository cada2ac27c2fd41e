-- Addresses of a network that every host takes to a port of its own.
CREATE TABLE local_ips (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    network_id TEXT NOT NULL REFERENCES networks (id),
    -- The port that holds the address.
    local_port_id TEXT NOT NULL REFERENCES ports (id),
    local_ip_address TEXT NOT NULL,
    ip_mode TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX local_ips_project ON local_ips (project_id, id);
CREATE INDEX local_ips_port ON local_ips (local_port_id);
-- The ports that stand for the address. The id is the local IP's and the port's, with a colon between.
CREATE TABLE local_ip_port_associations (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    local_ip_id TEXT NOT NULL REFERENCES local_ips (id),
    fixed_port_id TEXT NOT NULL REFERENCES ports (id),
    fixed_ip TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX local_ip_port_associations_ip ON local_ip_port_associations (local_ip_id);
CREATE INDEX local_ip_port_associations_port ON local_ip_port_associations (fixed_port_id);
