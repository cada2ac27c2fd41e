-- What Neutron's extensions know of a port. `hints` is JSON: an object, or null.
ALTER TABLE ports ADD COLUMN ip_allocation TEXT NOT NULL DEFAULT 'immediate';
ALTER TABLE ports ADD COLUMN data_plane_status TEXT;
ALTER TABLE ports ADD COLUMN device_profile TEXT;
ALTER TABLE ports ADD COLUMN hardware_offload_type TEXT;
ALTER TABLE ports ADD COLUMN hints TEXT NOT NULL DEFAULT 'null';
ALTER TABLE ports ADD COLUMN numa_affinity_policy TEXT;
ALTER TABLE ports ADD COLUMN propagate_uplink_status BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE ports ADD COLUMN trusted BOOLEAN;
