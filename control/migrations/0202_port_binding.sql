-- How a port is attached. A host whose agent has a vhost-user engine says where its sockets are; a port that is bound
-- to it keeps what Nova was told (JSON: an object with socket and mode, or null for a tap).
CREATE TABLE vhost_user_hosts (
    host TEXT PRIMARY KEY NOT NULL,
    socket_folder TEXT NOT NULL,
    mode TEXT NOT NULL
);
ALTER TABLE ports ADD COLUMN binding_vhost_user TEXT NOT NULL DEFAULT 'null';

-- Bindings beside the one that is in force: hosts that a guest may move to.
CREATE TABLE port_bindings (
    port_id TEXT NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
    host TEXT NOT NULL,
    vnic_type TEXT NOT NULL,
    profile TEXT NOT NULL,
    vhost_user TEXT NOT NULL,
    PRIMARY KEY (port_id, host)
);
