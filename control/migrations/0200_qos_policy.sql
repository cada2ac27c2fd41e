-- QoS policies and their rules, and who is under which policy. A policy has at most one rule of a type and direction;
-- the direction is empty for a type that has none, so that the database sees two rules of it as the same.
CREATE TABLE qos_policies (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    is_default BOOLEAN NOT NULL,
    tags TEXT NOT NULL DEFAULT '[]',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX qos_policies_project ON qos_policies (project_id, id);
CREATE UNIQUE INDEX qos_policies_default ON qos_policies (project_id) WHERE is_default;

CREATE TABLE qos_rules (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    policy_id TEXT NOT NULL REFERENCES qos_policies (id) ON DELETE CASCADE,
    rule_type TEXT NOT NULL,
    direction TEXT NOT NULL,
    max_kbps BIGINT,
    max_burst_kbps BIGINT,
    max_kpps BIGINT,
    max_burst_kpps BIGINT,
    min_kbps BIGINT,
    min_kpps BIGINT,
    dscp_mark BIGINT,
    tags TEXT NOT NULL DEFAULT '[]',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    UNIQUE (policy_id, rule_type, direction)
);

ALTER TABLE networks ADD COLUMN qos_policy_id TEXT REFERENCES qos_policies (id);
ALTER TABLE ports ADD COLUMN qos_policy_id TEXT REFERENCES qos_policies (id);
ALTER TABLE floating_ips ADD COLUMN qos_policy_id TEXT REFERENCES qos_policies (id);
ALTER TABLE routers ADD COLUMN gateway_qos_policy_id TEXT REFERENCES qos_policies (id);
CREATE INDEX networks_qos_policy ON networks (qos_policy_id) WHERE qos_policy_id IS NOT NULL;
CREATE INDEX ports_qos_policy ON ports (qos_policy_id) WHERE qos_policy_id IS NOT NULL;
CREATE INDEX floating_ips_qos_policy ON floating_ips (qos_policy_id) WHERE qos_policy_id IS NOT NULL;
CREATE INDEX routers_qos_policy ON routers (gateway_qos_policy_id) WHERE gateway_qos_policy_id IS NOT NULL;
