-- How hosts exchange the frames of an external network, and the largest IP packet that way.
CREATE TABLE transits (
    network_id TEXT PRIMARY KEY NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    vni BIGINT NOT NULL UNIQUE,
    mtu BIGINT NOT NULL
);
-- The ports of a router's gateway address that are a host's.
CREATE TABLE snat_port_blocks (
    router_id TEXT NOT NULL REFERENCES routers (id) ON DELETE CASCADE,
    host TEXT NOT NULL,
    first_port BIGINT NOT NULL,
    last_port BIGINT NOT NULL,
    PRIMARY KEY (router_id, host),
    UNIQUE (router_id, first_port)
);
-- The physical networks that each host has, as its agent says.
CREATE TABLE host_physical_networks (
    host TEXT NOT NULL,
    physical_network TEXT NOT NULL,
    PRIMARY KEY (host, physical_network)
);
-- Hosts that another one does not reach in the underlay, as that one's agent says.
CREATE TABLE unreachable_hosts (
    host TEXT NOT NULL,
    said_by TEXT NOT NULL,
    PRIMARY KEY (host, said_by)
);
CREATE INDEX unreachable_hosts_said_by ON unreachable_hosts (said_by);
