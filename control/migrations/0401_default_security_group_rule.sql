-- What new security groups begin with.
CREATE TABLE default_security_group_rules (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL,
    direction TEXT NOT NULL,
    ethertype TEXT NOT NULL,
    protocol TEXT,
    port_range_min BIGINT,
    port_range_max BIGINT,
    remote_ip_prefix TEXT,
    normalized_cidr TEXT,
    -- Whether the new group itself is meant: PARENT in the API.
    remote_is_parent BOOLEAN NOT NULL,
    remote_group_id TEXT REFERENCES security_groups (id) ON DELETE CASCADE,
    remote_address_group_id TEXT REFERENCES address_groups (id),
    match_key TEXT NOT NULL,
    used_in_default_sg BOOLEAN NOT NULL,
    used_in_non_default_sg BOOLEAN NOT NULL,
    tags TEXT NOT NULL DEFAULT '[]',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX default_security_group_rules_match ON default_security_group_rules (match_key);
CREATE INDEX default_security_group_rules_remote ON default_security_group_rules (remote_group_id);

-- Neutron's: everything out, and the members of a default group reach each other.
INSERT INTO default_security_group_rules
    (id, description, direction, ethertype, remote_is_parent, match_key, used_in_default_sg, used_in_non_default_sg,
     created_at, updated_at, revision_number, revision)
VALUES
    ('5e71de00-0000-4000-8000-000000000001', 'Legacy default SG rule for egress traffic', 'egress', 'IPv4',
     FALSE, 'egress IPv4 - - - - - -', TRUE, TRUE, 0, 0, 0, 0),
    ('5e71de00-0000-4000-8000-000000000002', 'Legacy default SG rule for egress traffic', 'egress', 'IPv6',
     FALSE, 'egress IPv6 - - - - - -', TRUE, TRUE, 0, 0, 0, 0),
    ('5e71de00-0000-4000-8000-000000000003', 'Legacy default SG rule for ingress traffic', 'ingress', 'IPv4',
     TRUE, 'ingress IPv4 - - - - PARENT -', TRUE, FALSE, 0, 0, 0, 0),
    ('5e71de00-0000-4000-8000-000000000004', 'Legacy default SG rule for ingress traffic', 'ingress', 'IPv6',
     TRUE, 'ingress IPv6 - - - - PARENT -', TRUE, FALSE, 0, 0, 0, 0);
