-- What a host is connected to is kept once, in host_physical_networks, which its reports write.
ALTER TABLE agents DROP COLUMN physical_networks;
