-- Ids are UUIDs as text; times are microseconds since 1970 (UTC); lists that are only read whole are JSON.
CREATE TABLE networks (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    admin_state_up BOOLEAN NOT NULL,
    shared BOOLEAN NOT NULL,
    external BOOLEAN NOT NULL,
    is_default BOOLEAN NOT NULL,
    mtu BIGINT NOT NULL,
    port_security_enabled BOOLEAN NOT NULL,
    dns_domain TEXT NOT NULL,
    availability_zone_hints TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX networks_project ON networks (project_id, id);
CREATE INDEX networks_name ON networks (name);
CREATE INDEX networks_shared ON networks (id) WHERE shared;
CREATE INDEX networks_external ON networks (id) WHERE external;

CREATE TABLE network_segments (
    id TEXT PRIMARY KEY NOT NULL,
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    segment_index BIGINT NOT NULL,
    network_type TEXT NOT NULL,
    physical_network TEXT,
    segmentation_id BIGINT,
    UNIQUE (network_id, segment_index)
);
-- No two networks on one segment. The three kinds of address need an index each, for NULLs are distinct.
CREATE UNIQUE INDEX network_segments_flat ON network_segments (physical_network) WHERE network_type = 'flat';
CREATE UNIQUE INDEX network_segments_vlan ON network_segments (physical_network, segmentation_id) WHERE network_type = 'vlan';
CREATE UNIQUE INDEX network_segments_tunnel ON network_segments (network_type, segmentation_id)
    WHERE network_type IN ('vxlan', 'gre', 'geneve');
