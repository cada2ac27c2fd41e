CREATE TABLE subnets (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    network_id TEXT NOT NULL REFERENCES networks (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    ip_version BIGINT NOT NULL,
    cidr TEXT NOT NULL,
    gateway_ip TEXT,
    enable_dhcp BOOLEAN NOT NULL,
    ipv6_ra_mode TEXT,
    ipv6_address_mode TEXT,
    allocation_pools TEXT NOT NULL,
    dns_nameservers TEXT NOT NULL,
    host_routes TEXT NOT NULL,
    service_types TEXT NOT NULL,
    dns_publish_fixed_ip BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX subnets_network ON subnets (network_id, id);
CREATE INDEX subnets_project ON subnets (project_id, id);

-- Where the search for a free address starts: behind the last one given. Locking this row serialises the
-- allocations of one subnet.
CREATE TABLE subnet_cursors (
    subnet_id TEXT PRIMARY KEY NOT NULL REFERENCES subnets (id) ON DELETE CASCADE,
    ip_key TEXT NOT NULL
);
