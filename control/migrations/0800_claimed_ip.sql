-- Addresses of allowed address pairs that guests have said they have: one guest of a network each.
CREATE TABLE claimed_ips (
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    ip_address TEXT NOT NULL,
    port_id TEXT NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
    PRIMARY KEY (network_id, ip_address)
);
CREATE INDEX claimed_ips_port ON claimed_ips (port_id);
