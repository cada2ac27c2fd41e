CREATE TABLE floating_ips (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    description TEXT NOT NULL,
    floating_network_id TEXT NOT NULL REFERENCES networks (id),
    floating_ip_address TEXT NOT NULL,
    -- The port that holds the address on the external network.
    floating_port_id TEXT NOT NULL REFERENCES ports (id),
    router_id TEXT REFERENCES routers (id),
    -- The guest's port.
    port_id TEXT REFERENCES ports (id),
    fixed_ip_address TEXT,
    dns_name TEXT NOT NULL,
    dns_domain TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX floating_ips_project ON floating_ips (project_id, id);
CREATE INDEX floating_ips_router ON floating_ips (router_id);
CREATE UNIQUE INDEX floating_ips_floating_port ON floating_ips (floating_port_id);
CREATE UNIQUE INDEX floating_ips_fixed ON floating_ips (port_id, fixed_ip_address) WHERE port_id IS NOT NULL;
