-- Who signs the feed's certificates: one for all servers of this database.
CREATE TABLE feed_authority (
    id BIGINT PRIMARY KEY NOT NULL,
    certificate TEXT NOT NULL,
    key TEXT NOT NULL
);
-- What hosts may join with, once each; only hashes.
CREATE TABLE feed_tokens (
    hash TEXT PRIMARY KEY NOT NULL,
    host TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX feed_tokens_host ON feed_tokens (host);
-- The certificates of agents that have not expired, by the SHA-256 of their bytes.
CREATE TABLE feed_certificates (
    fingerprint TEXT PRIMARY KEY NOT NULL,
    host TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked BOOLEAN NOT NULL
);
CREATE INDEX feed_certificates_host ON feed_certificates (host);
