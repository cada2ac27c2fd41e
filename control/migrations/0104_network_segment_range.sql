-- From which numbers segments take theirs. Those of the configuration are is_default, and are written anew when it
-- changes; project_id is empty for what is shared, physical_network for tunnels.
CREATE TABLE network_segment_ranges (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    is_default BOOLEAN NOT NULL,
    shared BOOLEAN NOT NULL,
    network_type TEXT NOT NULL,
    physical_network TEXT NOT NULL,
    minimum BIGINT NOT NULL,
    maximum BIGINT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX network_segment_ranges_kind ON network_segment_ranges (network_type, physical_network, minimum);
