-- Where the tunnels to each host lead, as its agent says.
CREATE TABLE tunnel_hosts (
    host TEXT PRIMARY KEY NOT NULL,
    tunnel_ip TEXT NOT NULL
);
