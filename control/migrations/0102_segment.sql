-- Segments are resources of their own: with a name, a description and revisions.
ALTER TABLE network_segments ADD COLUMN project_id TEXT NOT NULL DEFAULT '';
ALTER TABLE network_segments ADD COLUMN name TEXT;
ALTER TABLE network_segments ADD COLUMN description TEXT NOT NULL DEFAULT '';
ALTER TABLE network_segments ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE network_segments ADD COLUMN created_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE network_segments ADD COLUMN updated_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE network_segments ADD COLUMN revision_number BIGINT NOT NULL DEFAULT 1;
ALTER TABLE network_segments ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
UPDATE network_segments SET
    created_at = (SELECT n.created_at FROM networks n WHERE n.id = network_id),
    updated_at = (SELECT n.created_at FROM networks n WHERE n.id = network_id);

-- The segment that a routed network's subnet is on.
ALTER TABLE subnets ADD COLUMN segment_id TEXT REFERENCES network_segments (id);
CREATE INDEX subnets_segment ON subnets (segment_id) WHERE segment_id IS NOT NULL;
