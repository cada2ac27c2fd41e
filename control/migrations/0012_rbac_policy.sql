-- Who may use what of other projects. target_project is a project, or * for all.
CREATE TABLE rbac_policies (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    object_type TEXT NOT NULL,
    object_id TEXT NOT NULL,
    target_project TEXT NOT NULL,
    action TEXT NOT NULL,
    tags TEXT NOT NULL DEFAULT '[]',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    UNIQUE (object_type, object_id, target_project, action)
);
CREATE INDEX rbac_policies_target ON rbac_policies (object_type, target_project, object_id);
CREATE INDEX rbac_policies_project ON rbac_policies (project_id, id);

-- Sharing with everybody is such a policy too; that a network is external stays the network's own.
INSERT INTO rbac_policies
    SELECT id, project_id, 'network', id, '*', 'access_as_shared', '[]', created_at, updated_at, 1, revision
    FROM networks WHERE shared;
INSERT INTO rbac_policies
    SELECT SUBSTR(id, 1, 35) || CASE SUBSTR(id, 36, 1) WHEN '0' THEN '1' ELSE '0' END, project_id, 'network', id, '*', 'access_as_external', '[]', created_at, updated_at, 1, revision
    FROM networks WHERE external;
DROP INDEX networks_shared;
ALTER TABLE networks DROP COLUMN shared;
