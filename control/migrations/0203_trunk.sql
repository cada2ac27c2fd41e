-- A trunk makes further ports reachable through a guest's port, each under a VLAN of its own.
CREATE TABLE trunks (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    admin_state_up BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    port_id TEXT NOT NULL UNIQUE REFERENCES ports (id),
    tags TEXT NOT NULL DEFAULT '[]',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX trunks_project ON trunks (project_id, id);

CREATE TABLE trunk_subports (
    port_id TEXT PRIMARY KEY NOT NULL REFERENCES ports (id),
    trunk_id TEXT NOT NULL REFERENCES trunks (id) ON DELETE CASCADE,
    segmentation_type TEXT NOT NULL,
    segmentation_id BIGINT NOT NULL,
    -- Its place among the trunk's subports.
    position BIGINT NOT NULL,
    UNIQUE (trunk_id, segmentation_type, segmentation_id)
);
