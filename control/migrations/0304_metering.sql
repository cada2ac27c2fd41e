-- What traffic is to be counted, by address ranges.
CREATE TABLE metering_labels (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    shared BOOLEAN NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX metering_labels_project ON metering_labels (project_id, id);
CREATE TABLE metering_label_rules (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    metering_label_id TEXT NOT NULL REFERENCES metering_labels (id) ON DELETE CASCADE,
    direction TEXT NOT NULL,
    remote_ip_prefix TEXT,
    source_ip_prefix TEXT,
    destination_ip_prefix TEXT,
    excluded BOOLEAN NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX metering_label_rules_label ON metering_label_rules (metering_label_id);
