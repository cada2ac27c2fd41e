-- Named sets of address ranges that rules refer to. A group that a rule refers to cannot go.
CREATE TABLE address_groups (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    addresses TEXT NOT NULL,
    tags TEXT NOT NULL DEFAULT '[]',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX address_groups_project ON address_groups (project_id, id);

-- The column was there without the table that it refers to, and nothing could write it.
ALTER TABLE security_group_rules DROP COLUMN remote_address_group_id;
ALTER TABLE security_group_rules ADD COLUMN remote_address_group_id TEXT REFERENCES address_groups (id);
CREATE INDEX security_group_rules_address_group ON security_group_rules (remote_address_group_id)
    WHERE remote_address_group_id IS NOT NULL;
