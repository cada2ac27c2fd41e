CREATE TABLE security_groups (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    stateful BOOLEAN NOT NULL,
    is_default BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX security_groups_project ON security_groups (project_id, id);
CREATE UNIQUE INDEX security_groups_default ON security_groups (project_id) WHERE is_default;

CREATE TABLE security_group_rules (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    security_group_id TEXT NOT NULL REFERENCES security_groups (id) ON DELETE CASCADE,
    description TEXT NOT NULL,
    direction TEXT NOT NULL,
    ethertype TEXT NOT NULL,
    protocol TEXT,
    port_range_min BIGINT,
    port_range_max BIGINT,
    remote_ip_prefix TEXT,
    normalized_cidr TEXT,
    remote_group_id TEXT REFERENCES security_groups (id) ON DELETE CASCADE,
    remote_address_group_id TEXT,
    -- What makes two rules the same, as one text: the database refuses the second.
    match_key TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    UNIQUE (security_group_id, match_key)
);
CREATE INDEX security_group_rules_project ON security_group_rules (project_id, id);
CREATE INDEX security_group_rules_remote ON security_group_rules (remote_group_id);
