-- What each host does for the cloud, as Neutron's clients know it: three agents a host.
CREATE TABLE agents (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    host TEXT NOT NULL,
    agent_type TEXT NOT NULL,
    description TEXT,
    admin_state_up BOOLEAN NOT NULL,
    alive BOOLEAN NOT NULL,
    -- The Weft agent's: names of the physical networks that its host is connected to.
    physical_networks TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    heartbeat_at BIGINT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    UNIQUE (host, agent_type)
);

-- Networks that an operator gave to a DHCP agent, or took from it (not hosted).
CREATE TABLE dhcp_agent_networks (
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    hosted BOOLEAN NOT NULL,
    PRIMARY KEY (agent_id, network_id)
);
CREATE INDEX dhcp_agent_networks_network ON dhcp_agent_networks (network_id);

-- Routers that an operator gave to an L3 agent, or took from it (not hosted).
CREATE TABLE l3_agent_routers (
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    router_id TEXT NOT NULL REFERENCES routers (id) ON DELETE CASCADE,
    hosted BOOLEAN NOT NULL,
    PRIMARY KEY (agent_id, router_id)
);
CREATE INDEX l3_agent_routers_router ON l3_agent_routers (router_id);
