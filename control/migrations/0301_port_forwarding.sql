-- Ports of a floating IP without a fixed address of its own, and where they lead.
CREATE TABLE port_forwardings (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    description TEXT NOT NULL,
    floatingip_id TEXT NOT NULL REFERENCES floating_ips (id),
    protocol TEXT NOT NULL,
    external_port_first BIGINT NOT NULL,
    external_port_last BIGINT NOT NULL,
    internal_port_id TEXT NOT NULL REFERENCES ports (id),
    internal_ip_address TEXT NOT NULL,
    internal_port_first BIGINT NOT NULL,
    internal_port_last BIGINT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX port_forwardings_floating_ip ON port_forwardings (floatingip_id, id);
CREATE INDEX port_forwardings_port ON port_forwardings (internal_port_id);
