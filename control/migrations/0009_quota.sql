CREATE TABLE quotas (
    project_id TEXT NOT NULL,
    resource TEXT NOT NULL,
    quota_limit BIGINT NOT NULL,
    PRIMARY KEY (project_id, resource)
);
