-- Pages of all ports in the order of whatever they may be sorted by. A project's own are found by the project, and sorted.
CREATE INDEX ports_mac_address ON ports (mac_address, id);
CREATE INDEX ports_status ON ports (status, id);
CREATE INDEX ports_admin_state_up ON ports (admin_state_up, id);
CREATE INDEX ports_device_owner ON ports (device_owner, id);
CREATE INDEX ports_ip_allocation ON ports (ip_allocation, id);
DROP INDEX ports_device;
CREATE INDEX ports_device_id ON ports (device_id, id);
