-- Prefixes from which subnets are cut. prefixes is a JSON list in ascending order, disjoint and merged.
CREATE TABLE subnetpools (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    ip_version BIGINT NOT NULL,
    prefixes TEXT NOT NULL,
    min_prefixlen BIGINT NOT NULL,
    max_prefixlen BIGINT NOT NULL,
    default_prefixlen BIGINT NOT NULL,
    default_quota BIGINT,
    is_default BOOLEAN NOT NULL,
    address_scope_id TEXT REFERENCES address_scopes (id),
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX subnetpools_project ON subnetpools (project_id, id);
CREATE INDEX subnetpools_scope ON subnetpools (address_scope_id) WHERE address_scope_id IS NOT NULL;
-- One default a family.
CREATE UNIQUE INDEX subnetpools_default ON subnetpools (ip_version) WHERE is_default;

-- first_key and last_key are the ends of the subnet's range (keys as in port_fixed_ips), written for what comes from
-- a pool: the search for free space walks them in order, and no two subnets of a pool begin at one address.
ALTER TABLE subnets ADD COLUMN subnetpool_id TEXT REFERENCES subnetpools (id);
ALTER TABLE subnets ADD COLUMN first_key TEXT NOT NULL DEFAULT '';
ALTER TABLE subnets ADD COLUMN last_key TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX subnets_pool_first ON subnets (subnetpool_id, first_key) WHERE subnetpool_id IS NOT NULL;
CREATE INDEX subnets_pool_last ON subnets (subnetpool_id, last_key) WHERE subnetpool_id IS NOT NULL;

-- Below first_key no block of this size is free: where the next search starts. What is given back lowers it.
CREATE TABLE subnetpool_cursors (
    subnetpool_id TEXT NOT NULL REFERENCES subnetpools (id) ON DELETE CASCADE,
    prefixlen BIGINT NOT NULL,
    first_key TEXT NOT NULL,
    PRIMARY KEY (subnetpool_id, prefixlen)
);
