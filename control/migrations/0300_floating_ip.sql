-- One floating IP for an address of a port in each external network, as in Neutron.
DROP INDEX floating_ips_fixed;
CREATE UNIQUE INDEX floating_ips_fixed ON floating_ips (port_id, fixed_ip_address, floating_network_id)
    WHERE port_id IS NOT NULL;
