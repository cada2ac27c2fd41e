-- Pages of ports as a project sees them: its own, and those that others have in its networks. Both are one range of an index
-- in the order that was asked for, so that a page costs the same however many ports there are, and no planner has to guess.
ALTER TABLE ports ADD COLUMN shown_to TEXT;
UPDATE ports SET shown_to = (SELECT n.project_id FROM networks n WHERE n.id = ports.network_id)
    WHERE EXISTS (SELECT 1 FROM networks n
        WHERE n.id = ports.network_id AND n.project_id <> ports.project_id AND n.project_id <> '');
CREATE INDEX ports_shown_to ON ports (shown_to, id) WHERE shown_to IS NOT NULL;
CREATE INDEX ports_shown_to_name ON ports (shown_to, name, id) WHERE shown_to IS NOT NULL;
CREATE INDEX ports_shown_to_project ON ports (shown_to, project_id, id) WHERE shown_to IS NOT NULL;
CREATE INDEX ports_shown_to_network ON ports (shown_to, network_id, id) WHERE shown_to IS NOT NULL;
DROP INDEX ports_network_project;
CREATE INDEX ports_project_network ON ports (project_id, network_id, id);
-- Each index costs every port that is made some percent; pages are hardly ever sorted by these.
DROP INDEX ports_device_owner;
DROP INDEX ports_admin_state_up;
DROP INDEX ports_ip_allocation;
