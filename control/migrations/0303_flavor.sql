-- Flavors of a service, the profiles that say how it is provided, and which flavor has which profiles.
CREATE TABLE flavors (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    service_type TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE TABLE service_profiles (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    description TEXT NOT NULL,
    driver TEXT NOT NULL,
    metainfo TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
-- The id is the flavor's and the profile's, with a colon between.
CREATE TABLE flavor_service_profiles (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL,
    flavor_id TEXT NOT NULL REFERENCES flavors (id) ON DELETE CASCADE,
    service_profile_id TEXT NOT NULL REFERENCES service_profiles (id),
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision_number BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX flavor_service_profiles_flavor ON flavor_service_profiles (flavor_id);
CREATE INDEX flavor_service_profiles_profile ON flavor_service_profiles (service_profile_id);
ALTER TABLE routers ADD COLUMN flavor_id TEXT REFERENCES flavors (id);
CREATE INDEX routers_flavor ON routers (flavor_id);
