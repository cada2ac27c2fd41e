-- Pages of ports in order: of a network's as a project sees them, and by name.
CREATE INDEX ports_network_project ON ports (network_id, project_id, id);
CREATE INDEX ports_name ON ports (name, id);
CREATE INDEX ports_project_name ON ports (project_id, name, id);
