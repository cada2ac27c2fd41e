CREATE TABLE ports (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    network_id TEXT NOT NULL REFERENCES networks (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    admin_state_up BOOLEAN NOT NULL,
    mac_address TEXT NOT NULL,
    device_id TEXT NOT NULL,
    device_owner TEXT NOT NULL,
    status TEXT NOT NULL,
    port_security_enabled BOOLEAN NOT NULL,
    allowed_address_pairs TEXT NOT NULL,
    extra_dhcp_opts TEXT NOT NULL,
    dns_name TEXT NOT NULL,
    dns_domain TEXT NOT NULL,
    binding_host_id TEXT NOT NULL,
    binding_vnic_type TEXT NOT NULL,
    binding_profile TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    UNIQUE (network_id, mac_address)
);
CREATE INDEX ports_project ON ports (project_id, id);
CREATE INDEX ports_network ON ports (network_id, id);
CREATE INDEX ports_host ON ports (binding_host_id, id) WHERE binding_host_id <> '';
CREATE INDEX ports_device ON ports (device_id) WHERE device_id <> '';

-- ip_key is the address as 32 hex digits (IPv4 behind ::ffff:), so that text order is numeric order. The primary
-- key is what makes it impossible to give an address twice.
CREATE TABLE port_fixed_ips (
    subnet_id TEXT NOT NULL REFERENCES subnets (id),
    ip_key TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    port_id TEXT NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    PRIMARY KEY (subnet_id, ip_key)
);
CREATE INDEX port_fixed_ips_port ON port_fixed_ips (port_id, position);

CREATE TABLE port_security_groups (
    port_id TEXT NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
    security_group_id TEXT NOT NULL REFERENCES security_groups (id),
    PRIMARY KEY (port_id, security_group_id)
);
CREATE INDEX port_security_groups_group ON port_security_groups (security_group_id);
